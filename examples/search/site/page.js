// The page of the image search: asks what is like a picture, and shows it; see ../README.md.
//
// Nothing is kept in the browser. What is asked is a request like any other: it has an id, and its
// answer comes when the models and the index have said what they have to say.

const PATIENCE = 20; // seconds to wait for an answer at a time
const SLOWLY = 150; // milliseconds after the last move of the slider

const element = (id) => document.getElementById(id);
const results = element("results");
const template = element("tile");
const state = { picture: null, name: "", asked: 0 };

// --- asking ---------------------------------------------------------------------------------------

/** The answers to what is asked, by type. */
async function ask(endpoint, body, headers = {}) {
  const where = `/v1/endpoints/${endpoint}/requests`;
  const prefer = { Prefer: `wait=${PATIENCE}` };
  let answer = await fetch(where, { method: "POST", headers: { ...prefer, ...headers }, body });
  for (;;) {
    const told = await answer.json().catch(() => ({}));
    if (answer.status === 200) return answersOf(told);
    if (answer.status === 429 || answer.status === 503) {
      throw new Error("The server is busy or away. Try again in a moment.");
    }
    if (answer.status !== 202) throw new Error(problemOf(told, answer.status));
    answer = await fetch(told.links.result ?? answer.headers.get("Location"), { headers: prefer });
  }
}

function answersOf(told) {
  const wrong = (told.errors ?? []).map((one) => one.reason).join("; ");
  if (told.status !== "succeeded") throw new Error(wrong || `The request is ${told.status}.`);
  return Object.fromEntries(told.answers.map((one) => [one.type, one.data]));
}

function problemOf(problem, status) {
  const wrong = (problem.errors ?? []).map((one) => one.detail).join("; ");
  return wrong || problem.detail || `The server said ${status}.`;
}

/** Ask what is like the picture; of several questions the last one counts. */
async function search() {
  if (!state.picture) return;
  const number = ++state.asked;
  const began = performance.now();
  const input = { k: 12, collection: element("collection").value };
  if (!element("own").checked) input.weights = chosen();
  const body = new FormData();
  body.append("picture", state.picture, state.name);
  body.append("input", JSON.stringify(input));
  results.classList.add("busy");
  say("Looking ...");
  try {
    const { found } = await ask("similar", body);
    if (number === state.asked) show(found, performance.now() - began);
  } catch (error) {
    if (number === state.asked) say(error.message);
  } finally {
    if (number === state.asked) results.classList.remove("busy");
  }
}

async function add() {
  const body = new FormData();
  body.append("picture", state.picture, state.name);
  body.append("input", JSON.stringify({ name: `uploads/${state.name}`.slice(0, 200) }));
  element("add").disabled = true;
  try {
    await ask("add", body);
    await search();
    say(`Added: ${state.name} is found from now on.`);
  } catch (error) {
    say(error.message);
    element("add").disabled = false;
  }
}

async function remove(near) {
  const input = { picture_id: near.picture_id };
  try {
    await ask("remove", JSON.stringify({ input }), { "Content-Type": "application/json" });
    await search();
    say(`Removed: ${near.name} is found no more.`);
  } catch (error) {
    say(error.message);
  }
}

// --- showing --------------------------------------------------------------------------------------

function say(text) {
  element("status").textContent = text;
}

function show(found, took) {
  results.hidden = false;
  fill("together", found.merged, found.thumbs);
  for (const [model, near] of Object.entries(found.by_model)) fill(model, near, found.thumbs);
  if (element("own").checked) balance(found.weights);
  const versions = Object.entries(found.versions).map(([model, version]) => `${model} version ${version}`);
  say(`${found.shards} shards answered · ${versions.join(" · ")} · ${Math.round(took)} ms`);
  const warning = element("warning");
  warning.hidden = found.missing.length === 0;
  warning.textContent =
    `Shards ${found.missing.join(", ")} did not answer: there may be nearer pictures than these.`;
}

function fill(id, near, thumbs) {
  element(id).replaceChildren(...near.map((one) => tile(one, thumbs[one.picture_id])));
}

function tile(near, thumb) {
  const made = template.content.cloneNode(true);
  const address = `data:image/jpeg;base64,${thumb}`;
  const named = near.name.replaceAll("_", " ");
  const title = near.collection ? `${named}, ${near.collection}` : named;
  const look = made.querySelector(".look");
  look.setAttribute("aria-label", `What is like ${title}?`);
  look.addEventListener("click", () => lookLike(address, near.name));
  made.querySelector("img").src = address;
  made.querySelector(".name").textContent = title;
  made.querySelector(".name").title = saidBy(near);
  made.querySelector(".score").textContent = near.score.toFixed(3);
  made.querySelector(".bar i").style.width = `${100 * Math.max(0, Math.min(1, near.score))}%`;
  const folded = made.querySelector(".folded");
  folded.hidden = near.folded === 0;
  folded.textContent = `+${near.folded} alike`;
  const button = made.querySelector(".remove");
  button.setAttribute("aria-label", `Remove ${title}`);
  button.addEventListener("click", () => remove(near));
  return made;
}

function saidBy(near) {
  return Object.entries(near.scores).map(([model, score]) => `${model} ${score.toFixed(3)}`).join(", ");
}

// --- weights --------------------------------------------------------------------------------------

function chosen() {
  const right = Number(element("balance").value);
  return { lite0: 100 - right, lite2: right };
}

/** Let the slider stand where weights are. */
function balance(weights) {
  const whole = Object.values(weights).reduce((sum, one) => sum + one, 0);
  if (whole) element("balance").value = Math.round((100 * (weights.lite2 ?? 0)) / whole);
  name();
}

function name() {
  const { lite0, lite2 } = chosen();
  element("left").textContent = `lite0 ${lite0}%`;
  element("right").textContent = `lite2 ${lite2}%`;
}

// --- what a person does ---------------------------------------------------------------------------

function take(picture, title) {
  state.picture = picture;
  state.name = title || "picture";
  const shown = element("asked");
  if (shown.src.startsWith("blob:")) URL.revokeObjectURL(shown.src);
  shown.src = URL.createObjectURL(picture);
  shown.alt = state.name;
  shown.hidden = false;
  element("add").disabled = false;
  search();
}

async function lookLike(address, title) {
  take(await (await fetch(address)).blob(), title);
  element("add").disabled = true; // it is there
  window.scrollTo({ top: 0, behavior: "smooth" });
}

const field = element("picture");
field.addEventListener("change", () => {
  if (field.files[0]) take(field.files[0], field.files[0].name);
  field.value = "";
});
const drop = element("drop");
for (const [event, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  drop.addEventListener(event, (happened) => {
    happened.preventDefault();
    drop.classList.toggle("over", over);
  });
}
drop.addEventListener("drop", ({ dataTransfer }) => {
  const file = [...dataTransfer.files].find(({ type }) => type.startsWith("image/"));
  if (file) take(file, file.name);
});
document.addEventListener("paste", ({ clipboardData }) => {
  const file = [...clipboardData.files].find(({ type }) => type.startsWith("image/"));
  if (file) take(file, file.name);
});
element("add").addEventListener("click", add);
element("collection").addEventListener("change", search);
element("own").addEventListener("change", () => {
  element("balance").disabled = element("own").checked;
  search();
});
let moved = 0;
element("balance").addEventListener("input", () => {
  name();
  clearTimeout(moved);
  moved = setTimeout(search, SLOWLY);
});
element("ask").addEventListener("submit", (event) => event.preventDefault());
element("balance").disabled = true;
name();
