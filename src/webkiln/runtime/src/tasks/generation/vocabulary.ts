/** The tokenizer as a language model needs it: ids, the bytes of each token, and text. */
import { Tokenizer } from "@huggingface/tokenizers";
import { WebkilnError } from "../../index.js";
import { fromText } from "./detokenize.js";

interface DecoderDocument {
  readonly type: string;
  readonly decoders?: readonly DecoderDocument[];
}

interface TokenizerDocument {
  readonly decoder?: DecoderDocument | null;
  readonly added_tokens?: readonly { readonly id: number; readonly special?: boolean }[];
}

/** What GPT-2's byte-level BPE writes for each byte: letters for those that can't be printed. */
function byteLetters(): Map<string, string> {
  const letters = new Map<string, string>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    letters.set(String.fromCharCode(printable ? byte : next++), String.fromCharCode(byte));
  }
  return letters;
}

function flatten(decoder: DecoderDocument | null | undefined): readonly string[] {
  if (!decoder) return [];
  return [decoder.type, ...(decoder.decoders ?? []).flatMap((entry) => flatten(entry))];
}

/** How a token's written form becomes the bytes that it stands for, as a string of bytes. */
function spelling(document: TokenizerDocument): (token: string) => string {
  if (flatten(document.decoder).includes("ByteLevel")) {
    const letters = byteLetters();
    return (token) => {
      const bytes = Array.from(token, (letter) => letters.get(letter));
      return bytes.includes(undefined) ? fromText(token) : bytes.join("");
    };
  }
  // SentencePiece: ▁ is a space, <0x0A> a byte that no token has.
  return (token) => {
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
    return byte ? String.fromCharCode(parseInt(byte, 16)) : fromText(token.replaceAll("▁", " "));
  };
}

export class Vocabulary {
  private readonly tokenizer: Tokenizer;
  private readonly spell: (token: string) => string;
  private readonly added = new Map<number, boolean>();
  private readonly spelt = new Map<number, string>();

  /** `document` is a parsed tokenizer.json. */
  constructor(document: object) {
    this.tokenizer = new Tokenizer(document, {});
    const { added_tokens = [] } = document as TokenizerDocument;
    for (const { id, special = false } of added_tokens) this.added.set(id, special);
    this.spell = spelling(document);
  }

  /** Ids of a text, with no tokens around it; special tokens written out become theirs. */
  encode(text: string): number[] {
    if (typeof text !== "string") {
      throw new WebkilnError("input-text", `A text is a string; this is ${typeof text}.`);
    }
    return this.tokenizer.encode(text, { add_special_tokens: false }).ids;
  }

  /** The text of ids, special tokens written out. @throws WebkilnError "option-invalid". */
  decode(ids: readonly number[]): string {
    this.check(ids);
    if (!ids.length) return ""; // which the library refuses
    const asWritten = { skip_special_tokens: false, clean_up_tokenization_spaces: false };
    return this.tokenizer.decode([...ids], asWritten);
  }

  /** Refuses what are not ids of this vocabulary. */
  check(ids: readonly number[]): void {
    const wrong = ids.find((id) => !Number.isInteger(id) || this.written(id) === undefined);
    if (wrong === undefined) return;
    throw new WebkilnError("option-invalid", `The tokenizer has no token ${String(wrong)}.`);
  }

  private written(id: number): string | undefined {
    return this.tokenizer.id_to_token(id) ?? undefined;
  }

  /** The token with this name, such as a special one. */
  idOf(token: string): number | undefined {
    return this.tokenizer.token_to_id(token);
  }

  /** The token's bytes as a string of bytes; of a special token or a hole in the ids, none. */
  bytes(id: number): string {
    let bytes = this.spelt.get(id);
    if (bytes === undefined) {
      const written = this.written(id);
      const special = this.added.get(id);
      if (written === undefined || special) bytes = "";
      else bytes = special === undefined ? this.spell(written) : fromText(written);
      this.spelt.set(id, bytes);
    }
    return bytes;
  }

  /** Tokens that text is made of, with their bytes: all but those added to the vocabulary. */
  plain(): [number, string][] {
    const ids = [...this.tokenizer.get_vocab(true).values()].filter((id) => !this.added.has(id));
    return ids.map((id): [number, string] => [id, this.bytes(id)]).filter(([, bytes]) => bytes);
  }

  /** A token as people read it. */
  name(id: number): string {
    return this.written(id) ?? "";
  }
}
