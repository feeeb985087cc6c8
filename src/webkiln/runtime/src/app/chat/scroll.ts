/** Keeps the newest line in sight, unless the person has scrolled up to read. */

// Pixels from the end within which one is at the end: more than rounding, less than a line.
const NEAR = 24;

export class Follower {
  private following = false;
  private last = 0;

  constructor(
    private readonly scroller: HTMLElement,
    content: HTMLElement,
    private readonly button: HTMLButtonElement,
  ) {
    scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    button.addEventListener("click", () => {
      this.toLatest();
      scroller.focus({ preventScroll: true });
    });
    // Text that arrives makes the content longer, a keyboard that opens the window shorter.
    const sizes = new ResizeObserver(() => this.sized());
    sizes.observe(content);
    sizes.observe(scroller);
  }

  /** Goes to the end, and stays there while it moves on. */
  toLatest(): void {
    this.following = true;
    this.sized();
  }

  toTop(): void {
    this.following = false;
    this.scroller.scrollTop = this.last = 0;
    this.show();
  }

  private get atEnd(): boolean {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    return scrollHeight - clientHeight - scrollTop < NEAR;
  }

  private scrolled(): void {
    const { scrollTop } = this.scroller;
    // Only a person scrolls up; what the page does itself goes down.
    if (this.atEnd) this.following = true;
    else if (scrollTop < this.last) this.following = false;
    this.last = scrollTop;
    this.show();
  }

  private sized(): void {
    if (this.following) {
      this.scroller.scrollTop = this.scroller.scrollHeight;
      this.last = this.scroller.scrollTop;
    }
    this.show();
  }

  private show(): void {
    this.button.hidden = this.atEnd || this.following;
  }
}
