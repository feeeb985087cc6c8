// Keeps this folder for use without a network. Written by webkiln; the version changes with the model.
const VERSION = {{version}};
const FILES = {{files}};

// Several apps may live on one origin, each with caches of its own.
const PREFIX = `webkiln ${registration.scope} `;
const CACHE = PREFIX + VERSION;

addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)).then(() => skipWaiting()));
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
async function answer(request) {
  try {
    return await fetch(request);
  } catch (error) {
    const url = request.url.replace(/\/index\.html(?=$|[?#])/, "/");
    const kept = await caches.match(url, { ignoreSearch: true, ignoreVary: true });
    if (kept) return kept;
    throw error;
  }
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
    event.respondWith(answer(request).then(isolated));
  }
});
