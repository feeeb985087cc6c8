/** Colours of classes. Those that have one in most people's minds get it; others a lasting one. */
const KNOWN: Readonly<Record<string, string>> = {
  joy: "#e0a100", happiness: "#e0a100", sadness: "#4a7fc1", anger: "#cf3f2e", fear: "#8a63c4",
  love: "#dd5f93", surprise: "#1f9e96", disgust: "#6f8f3a", neutral: "#8a8178",
  positive: "#2f8f5b", negative: "#cf3f2e",
};

/** A colour that shows on light and on dark. */
export function colourOf(label: string): string {
  const known = KNOWN[label.toLowerCase()];
  if (known) return known;
  let hash = 0;
  for (const letter of label) hash = (hash * 31 + letter.codePointAt(0)!) >>> 0;
  return `hsl(${hash % 360} 50% 50%)`;
}
