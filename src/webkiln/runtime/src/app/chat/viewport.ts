/** Keeps the page within what is seen of it: on phones the keyboard covers the rest. */
export function fitKeyboard(): void {
  const { visualViewport } = window;
  if (!visualViewport) return;
  const { style } = document.documentElement;
  const fit = (): void => {
    const { height, offsetTop, scale } = visualViewport;
    // Whoever has zoomed in wants to look around, not another layout.
    const covered = scale === 1 && window.innerHeight - height > 1;
    if (covered) {
      style.setProperty("--height", `${height}px`);
      style.setProperty("--from-top", `${offsetTop}px`);
    } else {
      style.removeProperty("--height");
      style.removeProperty("--from-top");
    }
    document.body.classList.toggle("keyboard", covered);
  };
  visualViewport.addEventListener("resize", fit);
  visualViewport.addEventListener("scroll", fit);
}
