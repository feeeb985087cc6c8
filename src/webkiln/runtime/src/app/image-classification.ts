/** The page of an image classifier: a photograph on the left, its classes on the right. */
import type { Classification, ImageInput } from "../tasks/image-classification.js";
import { announce, byId, drawBars, formatTime, make, percent, samples } from "./page.js";
import { showError } from "./problems.js";
import { start } from "./shell.js";

const stage = byId("stage");
const preview = byId<HTMLImageElement>("preview");
const video = byId<HTMLVideoElement>("video");
const file = byId<HTMLInputElement>("file");
const camera = byId<HTMLButtonElement>("camera");

const shell = start<ImageInput, Classification[]>({
  run: (pipeline, image) => pipeline(image),
  show(classes, image, ms) {
    drawBars(byId("bars"), classes.map(({ label, score }) => ({
      name: label, share: score, value: percent(score),
    })));
    byId("result-note").textContent = `In ${formatTime(ms)}, decoding and resizing included.`;
    announce(classes.slice(0, 2).map(({ label, score }) => `${label}, ${percent(score)}`).join("; "));
    if (image === video && video.srcObject) requestAnimationFrame(() => shell.ask(video));
  },
  failed() {
    drawBars(byId("bars"), []);
    byId("result-note").textContent = "No result.";
    stopCamera();
  },
});

// What was shown last: a picture that arrives after another was chosen is not asked about.
let newest: unknown;

/** A picture at an address is fetched at once, while the model may still be on its way. */
async function ask(image: Blob | URL): Promise<void> {
  newest = image;
  const ready = image instanceof URL ? await fetched(image) : image;
  if (newest === image) shell.ask(ready);
}

/** An address that fails stays one: the pipeline says why. */
async function fetched(address: URL): Promise<Blob | URL> {
  try {
    const response = await fetch(address);
    return response.ok ? await response.blob() : address;
  } catch {
    return address;
  }
}

function showStill(image: Blob | URL, name: string): void {
  stopCamera();
  if (preview.src.startsWith("blob:")) URL.revokeObjectURL(preview.src);
  preview.src = image instanceof URL ? image.href : URL.createObjectURL(image);
  preview.alt = name;
  preview.hidden = false;
  byId("empty").hidden = true;
  for (const button of byId("samples").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.title === name));
  }
  void ask(image);
}
preview.onerror = () => {
  preview.hidden = true;
  byId("empty").hidden = false;
};

function takeFile(files: FileList | null | undefined): void {
  const [first] = files ?? [];
  if (first) showStill(first, first.name);
}

byId("choose").addEventListener("click", () => file.click());
file.addEventListener("change", () => {
  takeFile(file.files);
  file.value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", (event) => takeFile(event.clipboardData?.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  stage.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) stage.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  takeFile(event.dataTransfer?.files);
});

function stopCamera(): void {
  if (!(video.srcObject instanceof MediaStream)) return;
  for (const track of video.srcObject.getTracks()) track.stop();
  video.srcObject = null;
  video.hidden = true;
  camera.textContent = "Use the camera";
  camera.setAttribute("aria-pressed", "false");
  byId("empty").hidden = !preview.hidden;
}

async function startCamera(): Promise<void> {
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: 1280 } },
    });
    await video.play();
  } catch (error) {
    stopCamera();
    const denied = error instanceof DOMException && error.name === "NotAllowedError";
    showError({
      title: "The camera can't be used",
      message: denied ? "The browser was not allowed to use it." : "No camera was found.",
      hint: denied ? "Allow it for this page in the address bar." : "Choose a photo instead.",
      fatal: false,
    });
    return;
  }
  for (const button of byId("samples").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", "false");
  }
  preview.hidden = byId("empty").hidden = true;
  video.hidden = false;
  camera.textContent = "Stop the camera";
  camera.setAttribute("aria-pressed", "true");
  newest = video;
  shell.ask(video);
}

camera.hidden = !navigator.mediaDevices;
camera.addEventListener("click", () => (video.srcObject ? stopCamera() : void startCamera()));

const photographs = samples<{ file: string; label: string }>().map(({ file: path, label }) => ({
  url: new URL(`model/${path}`, document.baseURI), label,
}));
for (const { url, label } of photographs) {
  const thumbnail = make("img", { src: url.href, alt: label, loading: "lazy" });
  const choose = (): void => showStill(url, label);
  byId("samples").append(make("button", { type: "button", title: label, click: choose }, thumbnail));
}
byId("samples").hidden = photographs.length === 0;
if (photographs[0]) showStill(photographs[0].url, photographs[0].label);
