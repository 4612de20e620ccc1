// Stores conversations in this browser: in IndexedDB ("device", shared by all tabs) or sessionStorage ("tab").
// Python's side is storage.py. Input: {nonce, changes, moves, held, looks}; `held` are the conversations that the
// session works with, and no others leave the browser. Output: `snapshot` (what is stored of those) at the start, when
// `looks` has changed, and when another tab has changed one; `acknowledged` (the last change made); `lacking` (a change
// builds on a version that is not here); `trouble` (an error).
const DATABASE = "duoserve", STORE = "conversations", PREFERENCES = "duoserve.preferences";
const TAB_PREFIX = "duoserve.conversation.", PARTIAL_PREFIX = "duoserve.partial."; // the latter from transcript.js
const SYNC_PREFIX = "duoserve.sync."; // from sync.js

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

// Both places have the same four methods. `put` checks and changes in one transaction, so that when two tabs save
// the same conversation, the second always notices the first. `bases` are the revisions that it may replace.
const device = {
  // One after the other: all of them at once may need more memory than there is.
  async each(look) {
    const request = (await database()).transaction(STORE).objectStore(STORE).openCursor();
    return new Promise((resolve, reject) => {
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        if (!request.result || look(request.result.value) === false) resolve();
        else request.result.continue();
      };
    });
  },
  async get(id) {
    return settled((await database()).transaction(STORE).objectStore(STORE).get(id));
  },
  async put(conversation, bases) {
    const transaction = (await database()).transaction(STORE, "readwrite");
    const store = transaction.objectStore(STORE);
    const kept = await settled(store.get(conversation.id));
    if (kept && !bases.includes(kept.revision)) return false;
    await settled(store.put(conversation));
    return true;
  },
  async remove(id) {
    return settled((await database()).transaction(STORE, "readwrite").objectStore(STORE).delete(id));
  },
  // For sync.js: puts or, without a conversation, removes, if what is stored is still as `marked` says.
  async replace(id, marked, conversation) {
    const objects = (await database()).transaction(STORE, "readwrite").objectStore(STORE);
    if (mark(await settled(objects.get(id))) !== marked) return false;
    await settled(conversation ? objects.put(conversation) : objects.delete(id));
    return true;
  },
};

// What changes whenever a conversation does; labels change without a new revision.
const mark = (conversation) =>
  conversation ? JSON.stringify([conversation.revision, conversation.title, conversation.pinned, conversation.folder ?? ""]) : "";

const tab = {
  async each(look) {
    for (const key of Object.keys(sessionStorage)) {
      if (key.startsWith(TAB_PREFIX) && look(JSON.parse(sessionStorage.getItem(key))) === false) return;
    }
  },
  async get(id) {
    return JSON.parse(sessionStorage.getItem(TAB_PREFIX + id)) ?? undefined;
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

// --- the list of all conversations, for conversations.js: everything about them but their messages ---

let heads = null; // a promise of them, by id
const head = ({ messages, ...rest }) => rest;

async function readHeads() {
  const found = new Map();
  await place().each((conversation) => void found.set(conversation.id, head(conversation)));
  return found;
}

async function list() {
  heads ??= readHeads();
  return [...(await heads).values()];
}

async function listed(id, conversation) {
  if (conversation) (await heads)?.set(id, head(conversation));
  else (await heads)?.delete(id);
}

const store = Object.assign(new EventTarget(), {
  list,
  get: async (id) => remember(await place().get(id)),
  each: (look) => place().each(look),
  mark,
  async replace(id, marked, conversation) {
    if (place() !== device || !(await device.replace(id, marked, conversation))) return false;
    await listed(id, conversation);
    announce([id]);
    lookAgain([id]);
    return true;
  },
});
window.duoserveStorage = store;

// --- answers that were growing when their page went away: messages by the answer's id ---

function partials(ids) {
  const found = [localStorage, sessionStorage].flatMap((storage) =>
    Object.keys(storage)
      .filter((key) => ids.some((id) => key.startsWith(`${PARTIAL_PREFIX}${id}.`)))
      .map((key) => JSON.parse(storage.getItem(key))));
  return Object.fromEntries(found);
}

// All of this conversation; two tabs may have had an answer growing in it.
function forgetPartials(id) {
  for (const storage of [localStorage, sessionStorage]) {
    for (const key of Object.keys(storage)) if (key.startsWith(`${PARTIAL_PREFIX}${id}.`)) storage.removeItem(key);
  }
}

// A deletion is noted for sync.js: that a conversation is missing says nothing, because a browser may drop what it stores.
function noteDeletion(id) {
  for (const key of Object.keys(localStorage)) {
    if (!key.startsWith(SYNC_PREFIX) || !key.endsWith(`.${id}`)) continue;
    localStorage.setItem(key, JSON.stringify({ ...JSON.parse(localStorage.getItem(key)), gone: new Date().toISOString() }));
  }
}

// --- preferences ---

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
  const all = [];
  await before.each((conversation) => void all.push(conversation));
  for (const conversation of all) {
    await after.put(conversation, [conversation.revision]);
    await before.remove(conversation.id);
  }
  heads = null;
}

// --- changes ---

let reloadDue = false;
const sessions = new Map(); // by nonce
let latest = null; // the component as it was passed last

const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => b.toString(16).padStart(2, "0")).join("");
const asCopy = (conversation, id) => ({ ...conversation, id, title: `${conversation.title} (other tab)` });

// The messages of versions that Python knows, by their revision: a change has only those that differ. Few are needed.
const versions = new Map();

function remember(conversation) {
  if (!conversation) return conversation;
  versions.delete(conversation.revision);
  versions.set(conversation.revision, conversation.messages);
  for (const revision of versions.keys()) if (versions.size > 50) versions.delete(revision);
  return conversation;
}

async function whole({ after, same, conversation }) {
  if (!after) return remember(conversation);
  let known = versions.get(after);
  if (!known) {
    const kept = await place().get(conversation.id);
    if (kept?.revision !== after) throw new UnknownVersion();
    known = kept.messages;
  }
  return remember({ ...conversation, messages: [...known.slice(0, same), ...conversation.messages] });
}

class UnknownVersion extends Error {}

async function put(conversation, bases) {
  const done = await place().put(conversation, bases);
  if (done) await listed(conversation.id, conversation);
  return done;
}

// Makes a change; returns the id of the conversation that has changed.
const make = {
  async preferences(session, { preferences: wanted }) {
    await prefer(wanted);
  },
  async delete(session, { id: asked }) {
    const id = session.moved[asked] ?? asked;
    forgetPartials(asked);
    for (const storage of [localStorage, sessionStorage]) storage.removeItem(`duoserve.draft.${asked}`);
    session.deleted[asked] = await place().get(id);
    noteDeletion(id);
    await place().remove(id);
    await listed(id, null);
    return id;
  },
  async restore(session, { id }) {
    if (session.deleted[id]) await put(session.deleted[id], []);
    return id;
  },
  // Title, pin and the like of a conversation that the session does not hold. It is no new revision: a tab with an
  // answer growing in it takes the title over, and needs no copy.
  async head(session, { id, fields }) {
    const kept = await place().get(id);
    if (kept) await put({ ...kept, ...fields }, [kept.revision]);
    return id;
  },
  async add(session, { conversation }) {
    const id = (await place().get(conversation.id)) ? newId() : conversation.id;
    await put({ ...conversation, id }, []);
    return id;
  },
  async put(session, change) {
    const { base, rescue } = change, given = await whole(change);
    const moved = session.moved[given.id];
    const conversation = moved ? asCopy(given, moved) : given;
    // What this session wrote itself may be newer than the base, if a change was made before it was acknowledged.
    const bases = [base, session.written[conversation.id], conversation.revision];
    if (await put(conversation, bases)) {
      session.written[conversation.id] = conversation.revision;
      if (!conversation.answering) forgetPartials(given.id);
      return conversation.id;
    }
    session.lookDue = true;
    if (rescue) return given.id; // another tab has the whole answer, or has gone on without it
    // Another tab has saved this conversation meanwhile: both versions stay.
    const copy = newId();
    session.moved[given.id] = copy;
    session.written[copy] = conversation.revision;
    await put(asCopy(conversation, copy), []);
    return copy;
  },
};

function announce(changed) {
  channel?.postMessage({ tab: tabId, changed });
  store.dispatchEvent(new Event("change"));
}

// Have Python look at conversations that it works with and that have changed without it.
function lookAgain(changed) {
  const session = latest && sessions.get(latest.data.nonce);
  if (!session || !changed.some((id) => !id || latest.data.held.includes(id))) return;
  session.lookDue = true;
  schedule(latest.data.nonce);
}

async function work(nonce) {
  const session = sessions.get(nonce);
  const { data } = latest;
  if (data.nonce !== nonce) return;
  const changed = new Set();
  // Python uses the new id itself from here on.
  for (const [old, moved] of Object.entries(data.moves)) if (session.moved[old] === moved) delete session.moved[old];
  for (const change of data.changes) {
    if (change.sequence <= session.done) continue;
    changed.add(await make[change.op](session, change));
    session.done = change.sequence;
  }
  if (changed.size) announce([...changed]);
  if (reloadDue) return window.location.reload();
  if (session.done > session.acknowledged) {
    session.acknowledged = session.done;
    latest.setStateValue("acknowledged", { nonce, sequence: session.done });
  }
  if (session.lookDue || session.looks !== data.looks) {
    session.lookDue = false;
    session.looks = data.looks;
    const conversations = await Promise.all(data.held.map(store.get));
    latest.setTriggerValue("snapshot", {
      nonce,
      sequence: session.done,
      moved: session.moved,
      preferences: preferences(),
      partials: partials(data.held),
      held: data.held,
      conversations: conversations.filter(Boolean),
    });
  }
}

function schedule(nonce) {
  const session = sessions.get(nonce);
  session.queue = session.queue.then(() => work(nonce)).catch((error) => {
    if (error instanceof UnknownVersion) return latest.setTriggerValue("lacking", true);
    console.error("browser storage", error);
    latest.setTriggerValue("trouble", String(error?.message ?? error));
  });
}

if (channel) {
  channel.onmessage = async ({ data: { changed } }) => {
    for (const id of changed) if (heads && id) await listed(id, await place().get(id));
    if (changed.includes(undefined)) heads = null; // the preferences say where conversations are
    store.dispatchEvent(new Event("change"));
    lookAgain(changed);
  };
}

function receive(component) {
  latest = component;
  const { nonce } = component.data;
  if (!sessions.has(nonce)) {
    sessions.clear();
    sessions.set(nonce, {
      done: 0, acknowledged: 0, looks: -1, lookDue: true, moved: {}, written: {}, deleted: {}, queue: Promise.resolve(),
    });
  }
  schedule(nonce);
}
