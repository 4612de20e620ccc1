// Stores conversations in this browser: in IndexedDB ("device", shared by all tabs) or sessionStorage ("tab").
// Python's side is storage.py. Input: {nonce, changes, moves}. Output: `snapshot` (everything stored) at the
// start and when another tab has changed something, `acknowledged` (the last change made), `trouble` (an error).
const DATABASE = "duoserve", STORE = "conversations", PREFERENCES = "duoserve.preferences";
const TAB_PREFIX = "duoserve.conversation.", PARTIAL_PREFIX = "duoserve.partial."; // the latter from transcript.js

const tabId = Math.random().toString(36).slice(2);
const channel = "BroadcastChannel" in window ? new BroadcastChannel(DATABASE) : null;

function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

let opened = null;
function database() {
  if (!opened) {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    opened = settled(request);
  }
  return opened;
}

// Both places have the same three methods. `put` checks and changes in one transaction, so that when two tabs save
// the same conversation, the second always notices the first.
const device = {
  async all() {
    const db = await database();
    return settled(db.transaction(STORE).objectStore(STORE).getAll());
  },
  async put(conversation, bases) {
    const db = await database();
    const transaction = db.transaction(STORE, "readwrite");
    const store = transaction.objectStore(STORE);
    const kept = await settled(store.get(conversation.id));
    if (kept && !bases.includes(kept.revision)) return false;
    await settled(store.put(conversation));
    return true;
  },
  async remove(id) {
    const db = await database();
    return settled(db.transaction(STORE, "readwrite").objectStore(STORE).delete(id));
  },
};

const tab = {
  async all() {
    return Object.keys(sessionStorage)
      .filter((key) => key.startsWith(TAB_PREFIX))
      .map((key) => JSON.parse(sessionStorage.getItem(key)));
  },
  async put(conversation) {
    sessionStorage.setItem(TAB_PREFIX + conversation.id, JSON.stringify(conversation));
    return true;
  },
  async remove(id) {
    sessionStorage.removeItem(TAB_PREFIX + id);
  },
};

function preferences() {
  try {
    return JSON.parse(localStorage.getItem(PREFERENCES));
  } catch {
    return null;
  }
}

const place = () => (preferences()?.keep === "tab" ? tab : device);

// What is there of answers that were growing when their page went away: messages by the answer's id.
function partials() {
  const found = [localStorage, sessionStorage].flatMap((storage) =>
    Object.keys(storage).filter((key) => key.startsWith(PARTIAL_PREFIX)).map((key) => JSON.parse(storage.getItem(key))));
  return Object.fromEntries(found);
}

// All of this conversation; two tabs may have had an answer growing in it.
function forgetPartials(id) {
  for (const storage of [localStorage, sessionStorage]) {
    for (const key of Object.keys(storage)) if (key.startsWith(`${PARTIAL_PREFIX}${id}.`)) storage.removeItem(key);
  }
}

// Streamlit draws the page as this says when it is loaded; each of the two pages looks for it under its path.
function setTheme(theme) {
  const root = window.location.pathname.replace(/about$/, "");
  for (const path of [root, `${root}about`]) {
    const key = `stActiveTheme-${path}-v2`;
    if (theme === "System") localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify(theme));
  }
}

async function prefer(wanted) {
  const before = place();
  const theme = wanted.theme ?? "System";
  if (theme !== (preferences()?.theme ?? "System")) {
    setTheme(theme);
    reloadDue = true;
  }
  localStorage.setItem(PREFERENCES, JSON.stringify(wanted));
  const after = place();
  if (before === after) return;
  for (const conversation of await before.all()) {
    await after.put(conversation, [conversation.revision]);
    await before.remove(conversation.id);
  }
}

let reloadDue = false;
const sessions = new Map(); // by nonce: {done, acknowledged, moved, written, snapshotSent, queue}
let latest = null; // the component as it was passed last

function asCopy(conversation, id) {
  return { ...conversation, id, title: `${conversation.title} (other tab)` };
}

async function make(session, change) {
  if (change.op === "preferences") return prefer(change.preferences);
  if (change.op === "delete") {
    forgetPartials(change.id);
    return place().remove(session.moved[change.id] ?? change.id);
  }
  const moved = session.moved[change.conversation.id];
  const conversation = moved ? asCopy(change.conversation, moved) : change.conversation;
  // What this session wrote itself may be newer than the base, if a change was made before it was acknowledged.
  const bases = [change.base, session.written[conversation.id], conversation.revision];
  if (await place().put(conversation, bases)) {
    session.written[conversation.id] = conversation.revision;
    if (!conversation.answering) forgetPartials(change.conversation.id);
    return;
  }
  // Another tab has saved this conversation meanwhile: both versions stay.
  const copy = Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => b.toString(16).padStart(2, "0")).join("");
  session.moved[change.conversation.id] = copy;
  session.snapshotSent = false;
  session.written[copy] = conversation.revision;
  await place().put(asCopy(conversation, copy), []);
}

async function work(nonce) {
  const session = sessions.get(nonce);
  const { data } = latest;
  if (data.nonce !== nonce) return;
  let changed = false;
  for (const old of data.moves) delete session.moved[old]; // Python uses the new id itself from here on
  for (const change of data.changes) {
    if (change.sequence <= session.done) continue;
    await make(session, change);
    session.done = change.sequence;
    changed = true;
  }
  if (changed) channel?.postMessage(tabId);
  if (reloadDue) return window.location.reload();
  if (session.done > session.acknowledged) {
    session.acknowledged = session.done;
    latest.setStateValue("acknowledged", { nonce, sequence: session.done });
  }
  if (!session.snapshotSent) {
    session.snapshotSent = true;
    latest.setTriggerValue("snapshot", {
      nonce,
      sequence: session.done,
      moved: session.moved,
      preferences: preferences(),
      partials: partials(),
      conversations: await place().all(),
    });
  }
}

function schedule(nonce) {
  const session = sessions.get(nonce);
  session.queue = session.queue.then(() => work(nonce)).catch((error) => {
    console.error("browser storage", error);
    latest.setTriggerValue("trouble", String(error?.message ?? error));
  });
}

if (channel) {
  channel.onmessage = () => {
    if (!latest) return;
    const session = sessions.get(latest.data.nonce);
    if (!session) return;
    session.snapshotSent = false;
    schedule(latest.data.nonce);
  };
}

export default function (component) {
  latest = component;
  const { nonce } = component.data;
  if (!sessions.has(nonce)) {
    sessions.clear();
    sessions.set(nonce, { done: 0, acknowledged: 0, moved: {}, written: {}, snapshotSent: false, queue: Promise.resolve() });
  }
  schedule(nonce);
}
