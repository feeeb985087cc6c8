/** The conversation at hand: what is asked, answered, edited, kept and deleted. */
import type { DeviceOption, Model } from "../../index.js";
import { byId } from "../page.js";
import { clearError, explain, showError } from "../problems.js";
import { announce } from "./announce.js";
import { Composer } from "./composer.js";
import {
  messagesOf, newConversation, titleOf, type Answer, type Conversation, type Turn,
} from "./conversation.js";
import { Engine } from "./engine.js";
import { deviceName, setState, showContext, showDevice, showProgress, showSpeeds } from "./facts.js";
import { closeDrawer, HistoryView } from "./history.js";
import { recommended } from "./llm.js";
import { hideNotice, notice } from "./notice.js";
import { Follower } from "./scroll.js";
import { recallSettings, settingsForm, type SettingsForm } from "./settings.js";
import { quotaText } from "./storage.js";
import type { Store } from "./store.js";
import { Thread } from "./thread.js";
import { writeAnswer } from "./write.js";

// An answer under way is kept this often, so that a closed tab loses little of it. In ms.
const KEEP_EVERY = 2000;

export interface ChatEvents {
  /** The model is there, on a device for the first time. */
  loaded(model: Model): void;
  /** An answer came to its own end. */
  answered(): void;
}

/** An answer under way. */
interface Job {
  readonly controller: AbortController;
  readonly done: Promise<void>;
}

export class Chat {
  private conversation = newConversation();
  private job: Job | undefined;
  private readonly settings = recallSettings();
  private readonly composer: Composer;
  private readonly thread: Thread;
  private readonly history: HistoryView;
  private readonly engine: Engine;
  private readonly form: SettingsForm;
  private readonly follower = new Follower(byId("thread"), byId("turns"), byId("latest"));

  constructor(private readonly store: Store, private readonly events: ChatEvents) {
    this.composer = new Composer({
      send: (text) => void this.ask(text),
      stop: () => void this.stop(),
      editLast: () => this.thread.last?.edit(),
    });
    this.thread = new Thread({
      edit: (turn, text) => void this.edit(turn, text),
      again: (turn) => void this.answer(turn),
      choose: (turn, index) => void this.choose(turn, index),
      startAfresh: () => void this.startAfresh(),
    });
    this.history = new HistoryView({
      open: (conversation) => void this.open(conversation),
      rename: (conversation, title) => void this.rename(conversation, title),
      delete: (conversation) => void this.delete(conversation),
    });
    this.engine = new Engine({
      progress: showProgress,
      device: (model) => this.onDevice(model),
      ready: (llm) => {
        clearError();
        announce("The model is ready");
        this.form.recommend(recommended(llm));
        this.events.loaded(llm.model);
      },
      failed: (error, retry) => this.failed(error, retry),
    });
    this.form = settingsForm(this.settings);
    store.onChange = () => void this.list();
  }

  get model(): Model | undefined {
    return this.engine.llm?.model;
  }

  get answering(): boolean {
    return this.job !== undefined;
  }

  /** Loads the model on a device; an answer under way ends, one that waits for the model waits on. */
  async load(device: DeviceOption): Promise<void> {
    if (this.engine.llm) await this.stop();
    clearError();
    setState("loading", "Loading the model…");
    announce("Loading the model");
    byId("fact-device").textContent = "Loading…";
    byId("fact-device-note").textContent = "";
    byId<HTMLButtonElement>("selftest").disabled = true;
    await this.engine.open(device);
  }

  /** Sends a message. */
  async ask(question: string): Promise<void> {
    if (this.job) return;
    const { turns } = this.conversation;
    if (!turns.length && !this.conversation.renamed) this.conversation.title = titleOf(question);
    const turn: Turn = { question, answers: [], chosen: 0 };
    turns.push(turn);
    await this.answer(turn);
  }

  /** Ends the answer under way, and waits until it has ended. */
  async stop(): Promise<void> {
    this.job?.controller.abort();
    await this.job?.done;
  }

  async startAfresh(): Promise<void> {
    await this.open(newConversation());
  }

  async open(conversation: Conversation): Promise<void> {
    await this.stop();
    closeDrawer();
    hideNotice();
    this.conversation = conversation;
    remember(conversation.id);
    this.thread.show(conversation);
    this.showContext();
    if (conversation.turns.length) this.follower.toLatest();
    else this.follower.toTop();
    this.composer.focusOnDesktop();
    await this.list();
  }

  /** The conversation that this tab had open before it was loaded anew. */
  async resume(): Promise<void> {
    const id = recall();
    const found = (await this.store.list()).find((conversation) => conversation.id === id);
    if (found && !this.conversation.turns.length) await this.open(found);
    else await this.list();
  }

  /** Deletes every conversation, the one at hand included. */
  async clear(): Promise<void> {
    await this.stop();
    await this.store.clear();
    await this.startAfresh();
  }

  private async edit(turn: Turn, question: string): Promise<void> {
    await this.stop();
    const { turns } = this.conversation;
    turns.length = turns.indexOf(turn);
    await this.ask(question);
    this.composer.focusOnDesktop();
  }

  /** Writes another answer to the last question, and shows it. */
  private async answer(turn: Turn): Promise<void> {
    await this.stop();
    const answer: Answer = { text: "" };
    turn.chosen = turn.answers.push(answer) - 1;
    const controller = new AbortController();
    const { conversation } = this;
    const done = this.write(conversation, turn, answer, controller.signal);
    this.job = { controller, done };
    await done;
  }

  private async write(
    conversation: Conversation, turn: Turn, answer: Answer, signal: AbortSignal,
  ): Promise<void> {
    this.composer.busy = true;
    this.thread.show(conversation);
    const view = this.thread.view(turn)!.answer;
    view.reset();
    this.follower.toLatest();
    announce("Answering");
    void this.keep(conversation).then(() => this.list());
    try {
      view.wait(this.engine.llm ? "Reading" : "Waiting for the model");
      const llm = await this.engine.ready(signal);
      setState("busy", "Answering", deviceName(llm.model));
      view.wait("Reading");
      const messages = messagesOf(conversation, this.settings.system);
      const request = {
        messages, stream: true, stream_options: { include_usage: true }, signal,
        ...this.settings.sampling,
      } as const;
      let kept = performance.now();
      await writeAnswer(llm, request, answer, ({ write }) => {
        showSpeeds({ write });
        view.grown();
        if (performance.now() - kept < KEEP_EVERY) return;
        kept = performance.now();
        void this.keep(conversation);
      });
    } catch {
      answer.ending = "stopped"; // before the model was there
    }
    await this.written(conversation, answer, view);
  }

  private async written(
    conversation: Conversation, answer: Answer, view: { ended(): Promise<void> },
  ): Promise<void> {
    await view.ended();
    this.job = undefined;
    this.composer.busy = false;
    if (this.model) setState("ready", "Ready", deviceName(this.model));
    if (answer.cost) showSpeeds(answer.cost);
    this.showContext();
    if (answer.ending === "complete") this.events.answered();
    else announce(answer.ending === "stopped" ? "Stopped" : (answer.problem?.title ?? "The answer was cut off"));
    await this.keep(conversation);
    await this.list();
  }

  private async choose(turn: Turn, index: number): Promise<void> {
    if (this.job) return;
    turn.chosen = index;
    this.thread.view(turn)?.answer.reset();
    this.showContext();
    await this.keep(this.conversation);
  }

  // What is kept

  /** Puts the conversation into the store; a device without room is told of once a conversation. */
  private async keep(conversation: Conversation): Promise<void> {
    conversation.updated = Date.now();
    remember(conversation.id);
    try {
      await this.store.put(conversation);
      this.refused = "";
    } catch (error) {
      if (this.refused !== conversation.id) notice(quotaText(error), {}, true);
      this.refused = conversation.id;
    }
  }

  private refused = "";

  private async list(): Promise<void> {
    this.history.show(await this.store.list(), this.conversation.id);
  }

  private async rename(conversation: Conversation, title: string): Promise<void> {
    for (const one of new Set([conversation, this.conversation])) {
      if (one.id === conversation.id) Object.assign(one, { title, renamed: true });
    }
    await this.store.put(conversation.id === this.conversation.id ? this.conversation : conversation);
    await this.list();
  }

  private async delete(conversation: Conversation): Promise<void> {
    const open = conversation.id === this.conversation.id;
    if (open) await this.startAfresh();
    await this.store.delete(conversation.id);
    await this.list();
    notice(`“${conversation.title}” is deleted.`, {
      Undo: () => void this.store.put(conversation).then(() => (open ? this.open(conversation) : this.list())),
    });
  }

  // The model

  private onDevice(model: Model): void {
    showDevice(model);
    byId<HTMLButtonElement>("selftest").disabled = false;
    if (!this.job) setState("ready", "Ready", deviceName(model));
    this.showContext();
  }

  private failed(error: unknown, retry: () => void): void {
    setState("failed", "The model is not loaded");
    byId("fact-device").textContent = "–";
    byId<HTMLDialogElement>("settings").close(); // what happened is said below it
    const code = (error as { code?: unknown } | undefined)?.code;
    if (typeof code !== "string" || !/^(no-)?web(gpu)?/.test(code)) {
      return showError(explain(error), () => {
        setState("loading", "Loading the model…");
        retry();
      });
    }
    showError(explain(error), () => {
      document.querySelector<HTMLInputElement>("input[name=device][value=auto]")!.checked = true;
      void this.load("auto");
    }, "Choose a device for me");
  }

  private showContext(): void {
    const turn = this.conversation.turns.at(-1);
    const { cost, ending } = turn?.answers[turn.chosen] ?? {};
    const size = this.engine.llm?.context;
    const used = cost ? cost.prompt + cost.tokens : 0;
    showContext(ending === "context" ? (size ?? used) : used, size);
  }
}

const OPEN = `webkiln open ${new URL("./", document.baseURI).pathname}`;

function remember(id: string): void {
  try {
    sessionStorage.setItem(OPEN, id);
  } catch {
    // Storage may be forbidden; a reload then begins afresh.
  }
}

function recall(): string | null {
  try {
    return sessionStorage.getItem(OPEN);
  } catch {
    return null;
  }
}
