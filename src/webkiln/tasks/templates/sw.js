// Keeps this folder for use without a network. Written by webkiln; the version changes with the model.
const VERSION = {{version}};
const FILES = {{files}};

// Of WebAssembly's variants, those that this browser would rather not take: with relaxed SIMD (this module
// has an instruction of it) those without, else those that need it.
const RELAXED = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1,
  253, 15, 65, 2, 253, 15, 253, 128, 2, 11]);
const UNUSED = WebAssembly.validate(RELAXED) ? {{plain}} : {{relaxed}};

// Several apps may live on one origin, each with caches of its own.
const PREFIX = `webkiln ${registration.scope} `;
const CACHE = PREFIX + VERSION;

addEventListener("install", (event) => {
  const wanted = FILES.filter((file) => !UNUSED.includes(file));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(wanted)).then(() => skipWaiting()));
});

addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    const names = await caches.keys();
    const old = names.filter((name) => name.startsWith(PREFIX) && name !== CACHE);
    await Promise.all(old.map((name) => caches.delete(name)));
    await clients.claim();
  })());
});

// Asked for anew, so that a new build shows at once, and from a cache when there is no network.
// The runtime keeps the weights itself, in the origin's file system. The page is kept as "./".
async function answer(event) {
  const { request } = event;
  try {
    const response = await fetch(request);
    // After an update the browser may take another variant than on the first visit.
    const { pathname } = new URL(request.url);
    if (response.ok && pathname.endsWith(".wasm")) event.waitUntil(keep(pathname, response.clone()));
    return response;
  } catch (error) {
    const url = request.url.replace(/\/index\.html(?=$|[?#])/, "/");
    const kept = await caches.match(url, { ignoreSearch: true, ignoreVary: true });
    if (kept) return kept;
    throw error;
  }
}

async function keep(path, response) {
  await (await caches.open(CACHE)).put(path, response);
}

// Hosts that can't send these headers still get threads: from the second visit on, this worker does.
async function isolated(response) {
  if (response.status === 0 || response.redirected) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  const { status, statusText } = response;
  return new Response(status === 204 || status === 304 ? null : response.body, { status, statusText, headers });
}

addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method === "GET" && request.url.startsWith(registration.scope)) {
    event.respondWith(answer(event).then(isolated));
  }
});
