/**
 * Markdown as it arrives. A text is read anew on every change, which is quick; only the blocks that
 * changed are drawn anew, so that selections, code under way and scrolled tables stay as they are.
 * Loaded when the first answer is shown.
 */
import DOMPurify, { type Config } from "dompurify";
import { Marked, type Token, type Tokens } from "marked";
import { copyButton } from "./copy.js";

// HTML in an answer is most often what someone asked about, and is shown as text. These few are
// meant as marks, and harmless.
const INLINE = /^<\/?(?:br|sub|sup|kbd|mark|b|i|u|s)\s*\/?>$/i;

const reader = new Marked({
  gfm: true,
  breaks: true, // models break lines where they want them broken
  renderer: {
    html: ({ text }) => (INLINE.test(text.trim()) ? text : escape(text)),
    // The page's own headings are of the first and second level.
    heading({ tokens, depth }) {
      const level = Math.min(6, depth + 2);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    // Nothing is fetched for an answer: a picture is a link to it.
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
  },
});

const CLEAN = {
  ALLOWED_TAGS: [
    "a", "b", "blockquote", "br", "code", "del", "em", "h3", "h4", "h5", "h6", "hr", "i", "input",
    "kbd", "li", "mark", "ol", "p", "pre", "s", "strong", "sub", "sup", "table", "tbody", "td", "th",
    "thead", "tr", "u", "ul",
  ],
  ALLOWED_ATTR: ["align", "checked", "disabled", "href", "start", "title", "type"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  // DOMPurify takes the values of all other attributes for addresses.
  ADD_URI_SAFE_ATTR: ["align", "start", "type"],
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
} satisfies Config;

interface Block {
  readonly raw: string;
  readonly type: string;
  readonly element: HTMLElement;
}

export class MarkdownView {
  private blocks: Block[] = [];

  constructor(private readonly element: HTMLElement) {}

  /** Shows the text, and returns the blocks, of which the last may still grow. */
  update(text: string): readonly HTMLElement[] {
    const tokens = reader.lexer(text).filter(({ type }) => type !== "space" && type !== "def");
    const blocks = tokens.map((token, i) => this.block(token, this.blocks[i]));
    for (const { element } of this.blocks.slice(blocks.length)) element.remove();
    this.blocks = blocks;
    return blocks.map(({ element }) => element);
  }

  private block(token: Token, old: Block | undefined): Block {
    const { raw, type } = token;
    if (old?.raw === raw && old.type === type) return old;
    if (old && type === "code" && old.type === "code") {
      fillCode(old.element, token as Tokens.Code);
      return { raw, type, element: old.element };
    }
    const element = type === "code" ? codeBlock(token as Tokens.Code) : draw(token);
    if (old) old.element.replaceWith(element);
    else this.element.append(element);
    return { raw, type, element };
  }
}

function draw(token: Token): HTMLElement {
  const element = document.createElement("div");
  element.className = "block";
  element.append(DOMPurify.sanitize(reader.parser([token]), CLEAN));
  for (const link of element.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    link.title = link.href; // where it leads is seen before it is followed
  }
  for (const table of element.querySelectorAll("table")) {
    const box = document.createElement("div");
    box.className = "scroll";
    box.tabIndex = 0;
    table.replaceWith(box);
    box.append(table);
  }
  return element;
}

function codeBlock(token: Tokens.Code): HTMLElement {
  const element = document.createElement("div");
  element.className = "block code";
  const head = document.createElement("div");
  const name = document.createElement("span");
  const pre = document.createElement("pre");
  pre.tabIndex = 0;
  const code = document.createElement("code");
  pre.append(code);
  head.append(name, copyButton("Copy the code", () => code.textContent ?? "", "Copy"));
  element.append(head, pre);
  fillCode(element, token);
  return element;
}

function fillCode(element: HTMLElement, { lang, text }: Tokens.Code): void {
  element.querySelector("span")!.textContent = lang?.split(/\s/, 1)[0] || "code";
  element.querySelector("code")!.textContent = text;
}

function escape(text: string): string {
  return text.replace(/[&<>"]/g, (letter) => `&#${letter.codePointAt(0)};`);
}
