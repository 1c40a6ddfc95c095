// The page of the small backend: asks, and tells what comes of it; see ../README.md.
//
// What was asked is kept in this browser (`localStorage`), so that it outlives the page. All else
// is the server's: what is not kept there any more is told as gone.

const KEPT = "mqinfer-requests";
const MOST = 30; // requests on the list
const STREAMS = 4; // of the six connections that a browser opens to a server by HTTP/1.1
const EVERY = 3; // seconds after which one without a stream is asked about again
const SILENT = 10; // seconds without any news, after which that is said
const PATIENCE = [1, 2, 4, 8]; // seconds before asking again, where no answer came

const entries = []; // the newest first
const list = document.getElementById("asked");
const template = document.getElementById("entry");

const now = () => Date.now() / 1000;
const ended = ({ status }) => !["queued", "running"].includes(status);
const open = (entry) => entry.id && !ended(entry);
const number = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en", {
  weekday: "long", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});

// --- asking ---------------------------------------------------------------------------------------

/** Put something on the list, and ask until it is taken; the key makes it one request. */
async function ask(endpoint, title, makeBody, picture) {
  const entry = made({ key: key(), endpoint, title, status: "sending", since: now() });
  entry.picture = picture ?? null;
  entries.unshift(entry);
  for (const old of entries.slice(MOST)) remove(old);
  show(entry);
  for (let tries = 0; entries.includes(entry); tries += 1) {
    const answer = await asked(endpoint, entry.key, makeBody());
    if (!entries.includes(entry)) {
      if (answer?.ok) await forgetAt(await answer.json()); // it was given up meanwhile
      return;
    }
    if (answer === null) {
      entry.status = "away";
      await pause(entry, PATIENCE[Math.min(tries, PATIENCE.length - 1)]);
    } else if (answer.status === 429 || answer.status === 503) {
      entry.status = answer.status === 429 ? "busy" : "away";
      await pause(entry, Number(answer.headers.get("Retry-After")) || 5);
    } else if (answer.ok) {
      const told = await answer.json();
      const { id, links, status, expires } = told;
      const took = Math.round((now() - entry.since) * 1000);
      Object.assign(entry, { id, links, status, expires, took, heard: now() });
      keep();
      show(entry);
      follow();
      return;
    } else {
      const problem = await answer.json().catch(() => ({}));
      const wrong = (problem.errors ?? []).map((one) => one.detail);
      entry.status = "refused";
      entry.reason = wrong.join("; ") || problem.detail || `The server said ${answer.status}.`;
      show(entry);
      return;
    }
  }
}

/** The answer to what is asked; null where there is none. */
async function asked(endpoint, idempotency, { body, type }) {
  const headers = { "Idempotency-Key": idempotency };
  if (type) headers["Content-Type"] = type;
  const where = `/v1/endpoints/${endpoint}/requests`;
  return fetch(where, { method: "POST", headers, body }).catch(() => null);
}

async function pause(entry, seconds) {
  entry.again = now() + seconds;
  show(entry);
  await new Promise((done) => setTimeout(done, seconds * 1000));
  entry.again = 0;
}

function key() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// --- following ------------------------------------------------------------------------------------

/** Have a stream for each of the first that are open; the others are asked about now and then. */
function follow() {
  const wanted = document.hidden ? [] : entries.filter(open).reverse().slice(0, STREAMS);
  for (const entry of entries) {
    if (entry.stream && !wanted.includes(entry)) close(entry);
  }
  for (const entry of wanted) {
    if (!entry.stream && now() >= (entry.later ?? 0)) listen(entry);
  }
}

function listen(entry) {
  const where = new URL(entry.links.events, location.href);
  if (entry.last) where.searchParams.set("after", entry.last);
  const stream = new EventSource(where);
  entry.stream = stream;
  const on = (name, heard) =>
    stream.addEventListener(name, (event) => {
      if (event.lastEventId) entry.last = event.lastEventId;
      Object.assign(entry, { heard: now(), lost: 0, failed: 0 });
      heard(JSON.parse(event.data));
      show(entry);
    });
  stream.addEventListener("open", () => {
    Object.assign(entry, { heard: now(), lost: 0 });
    show(entry);
  });
  on("progress", (told) => Object.assign(entry, { status: "running", progress: told }));
  on("answer", (told) => take(entry, told));
  on("end", () => {
    close(entry);
    entry.later = now() + 1; // no new stream until it is known how it ended
    look(entry);
  });
  on("reconnect", () => {}); // the server stops: the browser comes again by itself
  stream.addEventListener("error", () => {
    entry.lost ||= now();
    // The browser comes again by itself, with the last event's id; unless the server refused.
    if (stream.readyState !== EventSource.CLOSED) return;
    close(entry);
    entry.later = now() + 2;
    setTimeout(() => look(entry), 1000);
  });
}

function close(entry) {
  entry.stream?.close();
  entry.stream = null;
}

function take(entry, answer) {
  entry.answers[answer.type] = answer.data;
  entry.status = "running";
  keep();
}

/** Ask how one stands, and for what came of it: all of that, once it has ended. */
async function look(entry) {
  if (entry.looking) return;
  entry.looking = true;
  try {
    const told = await got(entry.links.self);
    if (told && (ended(told) || !Object.keys(entry.answers).length)) {
      const found = await got(entry.links.result);
      for (const one of found?.answers ?? []) entry.answers[one.type] = one.data;
      entry.reason = (found?.errors ?? []).map(reasonOf).join("; ");
    }
    entry.status = told?.status ?? "gone";
    entry.progress = told?.progress ?? entry.progress;
    entry.expires = told?.expires ?? entry.expires;
    if (!open(entry)) close(entry);
    Object.assign(entry, { lost: 0, failed: 0, heard: now() });
    keep();
  } catch {
    entry.lost ||= now();
    entry.failed = (entry.failed ?? 0) + 1;
    entry.later = now() + PATIENCE[Math.min(entry.failed, PATIENCE.length) - 1];
  } finally {
    entry.looking = false;
    show(entry);
    follow();
  }
}

/** What is at an address; null where it is not kept any more. */
async function got(where) {
  const answer = await fetch(where, { cache: "no-store" });
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(answer.statusText);
  return answer.json();
}

function reasonOf(error) {
  if (error.kind === "internal") return "Something went wrong on the server.";
  return error.reason;
}

/** Once a second: what only the time tells. */
function tick() {
  for (const entry of entries) {
    if (entry.again || open(entry)) show(entry);
    if (!entry.id || entry.status === "gone" || now() < (entry.later ?? 0)) continue;
    if (open(entry)) {
      if (!entry.stream && !document.hidden && now() - entry.heard > EVERY) look(entry);
    } else if (now() > Date.parse(entry.expires) / 1000 + 1) {
      entry.later = now() + 10; // the server's clock decides
      look(entry);
    }
  }
  follow();
}

// --- what a person does ---------------------------------------------------------------------------

async function cancel(entry) {
  if (!entry.id) {
    remove(entry); // nobody has taken it yet
    return;
  }
  await fetch(entry.links.cancel, { method: "POST" }).catch(() => null);
  look(entry); // it may have ended just before
}

async function forget(entry) {
  remove(entry);
  if (entry.id && entry.status !== "gone") await forgetAt(entry);
}

async function forgetAt({ links }) {
  await fetch(links.self, { method: "DELETE" }).catch(() => null);
}

function remove(entry) {
  close(entry);
  entries.splice(entries.indexOf(entry), 1);
  entry.element.remove();
  document.getElementById("none").hidden = entries.length > 0;
  keep();
  follow();
}

async function askPictures(files) {
  for (const file of files) {
    const picture = await thumbnail(file);
    const body = () => {
      const form = new FormData();
      form.append("picture", file, file.name);
      form.append("input", JSON.stringify({ name: file.name.slice(0, 200) }));
      return { body: form };
    };
    ask("look", file.name, body, picture);
  }
}

function askFactorial(n) {
  const body = JSON.stringify({ input: { n } });
  ask("factorial", `${number.format(n)}!`, () => ({ body, type: "application/json" }));
}

// --- what is seen ---------------------------------------------------------------------------------

const WORDS = {
  sending: ["", "Sending"],
  queued: ["", "Waiting its turn"],
  running: ["", "At work"],
  succeeded: ["done", "Done"],
  partial: ["bad", "Done in part"],
  failed: ["bad", "No answer"],
  refused: ["bad", "Refused"],
  canceled: ["", "Canceled"],
  expired: ["bad", "Not done in time"],
  gone: ["gone", "Its answer is not kept any more"],
};

const QUIET =
  "No news for a while. Nothing is lost: others come first, or a worker is being started again.";

/** How an entry stands: tone, words, and a hint. */
function told(entry) {
  if (entry.status === "busy") {
    return ["busy", "Too much is waiting", `The server has no room now. Asking again in ${left(entry)}.`];
  }
  if (entry.status === "away") {
    return ["away", "No answer from the server", `Asking again in ${left(entry)}.`];
  }
  const [tone, words] = WORDS[entry.status];
  if (open(entry)) {
    if (entry.lost && now() - entry.lost > 2) {
      return ["away", "No connection", "Connecting again. Your request goes on meanwhile."];
    }
    if (now() - entry.heard > SILENT) {
      return [tone, words, QUIET];
    }
    return [tone, words, ""];
  }
  if (entry.status === "gone") {
    const had = Object.keys(entry.answers).length > 0;
    return [tone, words, had ? "What you see is what this browser has of it." : ""];
  }
  if (entry.reason) return [tone, words, entry.reason];
  const until = Date.parse(entry.expires ?? "");
  if (entry.status === "succeeded" && until) {
    return [tone, words, `The answer is kept until ${clock.format(until)}.`];
  }
  return [tone, words, ""];
}

function left(entry) {
  const seconds = Math.max(1, Math.ceil((entry.again || now()) - now()));
  return seconds === 1 ? "a second" : `${seconds} seconds`;
}

function made(entry) {
  const element = template.content.cloneNode(true).querySelector("li");
  const find = (selector) => element.querySelector(selector);
  entry.answers ??= {};
  entry.veiled = true;
  entry.element = element;
  find("h3").textContent = entry.title;
  find(".cancel").addEventListener("click", () => cancel(entry));
  find(".forget").addEventListener("click", () => forget(entry));
  find(".veil").addEventListener("click", () => {
    entry.veiled = !entry.veiled;
    entry.drawn = "";
    show(entry);
  });
  find(".cancel").setAttribute("aria-label", `Cancel ${entry.title}`);
  find(".forget").setAttribute("aria-label", `Forget ${entry.title}`);
  return entry;
}

function show(entry) {
  const { element, answers } = entry;
  const find = (selector) => element.querySelector(selector);
  if (!element.isConnected) {
    list.insertBefore(element, list.children[entries.indexOf(entry)] ?? null);
    document.getElementById("none").hidden = true;
  }
  const [tone, words, hint] = told(entry);
  element.dataset.tone = tone;
  element.dataset.status = entry.status;
  write(find(".status"), words);
  write(find(".hint"), hint);
  write(find(".id"), entry.id ? `${entry.id}${entry.took ? ` after ${entry.took} ms` : ""}` : "");
  const over = entry.id ? !open(entry) : entry.status === "refused";
  find(".cancel").hidden = over;
  find(".forget").hidden = !over;
  showProgress(entry, find("progress"));
  showLabels(answers.labels, find(".labels"));
  showProduct(answers.product, find(".product"));
  showPicture(entry, find(".picture"));
}

/** A text that is the same is left alone: what is written again is read aloud again. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function showProgress({ progress, status, ...entry }, bar) {
  bar.hidden = ended({ status });
  if (progress && progress.settled + progress.open > 1) {
    bar.max = progress.settled + progress.open;
    bar.value = progress.settled;
    bar.setAttribute("aria-label", `${entry.title}: ${progress.settled} of ${bar.max} steps`);
  } else {
    bar.removeAttribute("value");
    bar.setAttribute("aria-label", entry.title);
  }
}

function showLabels(labels, element) {
  element.hidden = !labels;
  if (!labels || element.childElementCount) return;
  for (const { name, share } of labels.labels) {
    const item = document.createElement("li");
    const [text, bar, amount] = ["name", "bar", "share"].map((kind) => {
      const part = document.createElement("span");
      part.className = kind;
      item.append(part);
      return part;
    });
    text.textContent = name;
    amount.textContent = `${Math.round(share * 100)} %`;
    const filled = document.createElement("i");
    filled.style.width = `${share * 100}%`;
    bar.append(filled);
    element.append(item);
  }
}

function showProduct(product, element) {
  element.hidden = !product;
  if (!product || element.childElementCount) return;
  const small = product.digits <= 12;
  const rows = {
    Number: small ? product.first : `${product.first} … ${product.last}, then ${number.format(product.zeros)} zeros`,
    Digits: number.format(product.digits),
    Took: `${product.seconds.toFixed(2)} s`,
  };
  for (const [name, text] of Object.entries(rows)) {
    element.append(
      Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: text }),
    );
  }
}

// --- pictures -------------------------------------------------------------------------------------

const THUMBNAIL = 448; // pixels of the square that is kept

/** The square in the middle of a picture; null where the browser cannot read it. */
async function thumbnail(file) {
  const image = await createImageBitmap(file).catch(() => null);
  if (!image) return null;
  const side = Math.min(image.width, image.height);
  const canvas = Object.assign(document.createElement("canvas"), { width: THUMBNAIL, height: THUMBNAIL });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(
    image, (image.width - side) / 2, (image.height - side) / 2, side, side, 0, 0, THUMBNAIL, THUMBNAIL,
  );
  image.close();
  return canvas;
}

function showPicture(entry, frame) {
  frame.hidden = !entry.picture;
  if (!entry.picture) return;
  const heat = entry.answers.heat;
  const canvas = frame.querySelector("canvas");
  const button = frame.querySelector(".veil");
  const drawn = heat && entry.veiled ? "heat" : "plain";
  button.hidden = !heat;
  if (entry.drawn === drawn) return;
  entry.drawn = drawn;
  button.setAttribute("aria-pressed", String(entry.veiled));
  const where = heat && entry.veiled ? `; bright where the model saw: ${heat.name}` : "";
  canvas.setAttribute("aria-label", `${entry.title}${where}`);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(entry.picture, 0, 0, canvas.width, canvas.height);
  if (drawn === "heat") context.drawImage(veil(heat.rows), 0, 0, canvas.width, canvas.height);
}

/** A dark veil, which is thin where the model looked. */
function veil(rows) {
  const canvas = Object.assign(document.createElement("canvas"), { width: rows.length, height: rows.length });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(rows.length, rows.length);
  rows.flat().forEach((value, index) => {
    pixels.data.set([12, 16, 22, Math.round(225 * (1 - value))], index * 4);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

// --- what is kept ---------------------------------------------------------------------------------

const FIELDS = ["id", "endpoint", "title", "links", "expires", "status", "answers", "reason", "last", "took"];

function keep() {
  const kept = entries.filter((entry) => entry.id).map((entry) => {
    entry.shrunk ??= entry.picture?.toDataURL("image/jpeg", 0.8) ?? "";
    return { ...Object.fromEntries(FIELDS.map((name) => [name, entry[name]])), shrunk: entry.shrunk };
  });
  try {
    localStorage.setItem(KEPT, JSON.stringify(kept));
  } catch {
    // There is no room, or it is not allowed: then the list ends with the page.
  }
}

async function restore() {
  let kept = [];
  try {
    kept = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
  } catch {
    // What cannot be read is as good as nothing.
  }
  entries.push(...kept.map((fields) => made({ ...fields, heard: now() })));
  for (const entry of [...entries]) {
    if (entry.shrunk) entry.picture = await thumbnail(decoded(entry.shrunk));
    show(entry);
    if (entry.status !== "gone") look(entry);
  }
}

function decoded(url) {
  const text = atob(url.slice(url.indexOf(",") + 1));
  return new Blob([Uint8Array.from(text, (char) => char.charCodeAt(0))], { type: "image/jpeg" });
}

// --- wiring ---------------------------------------------------------------------------------------

const input = document.getElementById("pictures");
const drop = document.getElementById("drop");
input.addEventListener("change", () => {
  askPictures([...input.files]);
  input.value = "";
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault(); // anywhere: a picture that misses the field must not replace the page
    drop.classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") askPictures([...event.dataTransfer.files]);
  });
}
document.addEventListener("paste", (event) => askPictures([...event.clipboardData.files]));
document.getElementById("look").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("factorial").addEventListener("submit", (event) => {
  event.preventDefault();
  askFactorial(document.getElementById("number").valueAsNumber);
});
document.addEventListener("visibilitychange", follow);
setInterval(tick, 1000);
await restore();
