/**
 * A client of mqinfer's gateway, without dependencies: Node.js 18 and later, and browsers.
 *
 *     import { Client, Invalid, Rejected } from "./client.mjs";
 *
 *     const client = new Client("http://127.0.0.1:8080");
 *     const request = await client.request("iris", { sepal_length: 5.1, ... });
 *     const [iris] = await request.result();          // waits, and throws what went wrong
 *     for await (const event of request.events()) ... // progress, answer, end
 *
 *     const job = await client.submit("iris", file, { format: "csv" });       // a Blob, or rows
 *     for await (const { progress, rows } of job.progress()) ...
 *     for await (const { row, answers, errors } of job.results()) ...
 *
 * Errors are classes: `Invalid` names the fields that the gateway refused before any model saw them,
 * `Rejected` has the words of the model's own exception, `Failed` the id of the dead letter of what
 * broke by accident. A call that met no server, or a busy one, is made again, under the same
 * Idempotency-Key: what is asked twice so is asked once.
 */

/** Base of all errors here. */
export class MqinferError extends Error {
  constructor(message) {
    super(message);
    this.name = this.constructor.name;
  }
}

/** What was asked is not what the endpoint takes; `errors` has each `{pointer, detail}`. */
export class Invalid extends MqinferError {
  constructor(errors) {
    super(errors.map(({ pointer, detail }) => `${pointer}: ${detail}`).join("; "));
    this.errors = errors;
    /** The names of the fields that are wrong. */
    this.fields = errors.map(({ pointer }) => pointer.replace(/^\/input\//, ""));
  }
}

/** A model, or another handler, said that this can never be answered; the text is its own. */
export class Rejected extends MqinferError {
  constructor(reason) {
    super(reason);
    const named = /^([A-Za-z_]\w*): (.*)$/s.exec(reason);
    /** The class of the exception that a model raised, such as "SepalTooLong"; "" if unnamed. */
    this.kind = named ? named[1] : "";
    this.reason = named ? named[2] : reason;
  }
}

/** It broke, and not by what was asked; `letter` names the dead letter, for whoever runs it. */
export class Failed extends MqinferError {
  constructor(reason, letter = "") {
    super(letter ? `${reason} (dead letter ${letter})` : reason);
    this.letter = letter;
  }
}

/** It was canceled. */
export class Canceled extends MqinferError {}

/** Its deadline came first. */
export class Expired extends MqinferError {}

/** There is no such thing, or its answer is kept no more. */
export class Unknown extends MqinferError {}

/** It has not ended in the time that was given; it goes on. */
export class Pending extends MqinferError {}

/** The gateway refused the call, with this `status` of HTTP. */
export class Refused extends MqinferError {
  constructor(status, detail) {
    super(`${status}: ${detail}`);
    this.status = status;
  }
}

/** The gateway cannot be reached, or has no room, and that lasts. */
export class Unavailable extends MqinferError {}

const sleep = (seconds, signal) =>
  new Promise((done, failed) => {
    signal?.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      failed(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      done();
    }, 1000 * seconds);
    signal?.addEventListener("abort", stop, { once: true });
  });

export class Client {
  /**
   * @param {string} base address of a gateway; "" is the one that the page came from.
   * @param {{key?: string, patience?: number}} options an API key, and the seconds for which calls
   *   that meet no server or a busy one are made again.
   */
  constructor(base = "", { key = "", patience = 60 } = {}) {
    this.base = base.replace(/\/$/, "");
    this.headers = key ? { authorization: `Bearer ${key}` } : {};
    this.patience = patience;
  }

  /**
   * Ask an endpoint; returns once the request is accepted, from when on nothing loses it.
   *
   * @param {{key?: string, signal?: AbortSignal}} options asked again under the same key, it is the
   *   same request; made up if there is none.
   */
  async request(endpoint, input, { key = crypto.randomUUID(), signal } = {}) {
    const response = await this.call(`/v1/endpoints/${encodeURIComponent(endpoint)}/requests`, {
      method: "POST",
      body: JSON.stringify({ input }),
      headers: { "content-type": "application/json", "idempotency-key": key },
      signal,
    });
    return new Request(this, await response.json());
  }

  /** A request by its id, from wherever it was asked. */
  async get(id, { signal } = {}) {
    const response = await this.call(`/v1/requests/${encodeURIComponent(id)}`, { signal });
    return new Request(this, await response.json());
  }

  /**
   * Ask an endpoint for every row of a file, or of a list; returns once the job is accepted.
   *
   * @param {Blob | object[]} source a file of rows, such as an <input> gives, or the rows themselves.
   * @param {object} options `key` and `signal` as of a request; `format` of a file: "csv", "jsonl" or
   *   "parquet"; and what POST /v1/jobs takes beside it, such as `max_failures`.
   */
  async submit(endpoint, source, { key = crypto.randomUUID(), signal, ...terms } = {}) {
    let body = { endpoint, ...terms };
    if (source instanceof Blob) {
      const form = new FormData();
      form.append("file", source, source.name ?? "rows");
      const stored = await this.call("/v1/files", { method: "POST", body: form, signal });
      body.file = (await stored.json()).files.file.path;
    } else body.rows = source;
    const response = await this.call("/v1/jobs", {
      method: "POST",
      body: JSON.stringify(body),
      headers: { "content-type": "application/json", "idempotency-key": key },
      signal,
    });
    return new Job(this, await response.json());
  }

  /** A job by its id, from wherever it was submitted. */
  async job(id, { signal } = {}) {
    const response = await this.call(`/v1/jobs/${encodeURIComponent(id)}`, { signal });
    return new Job(this, await response.json());
  }

  /** One call; throws what the gateway says, once it says something that lasts. */
  async call(path, { headers = {}, signal, ...rest } = {}) {
    const until = Date.now() + 1000 * this.patience;
    for (let wait = 0.2; ; wait = Math.min(2 * wait, 5)) {
      let why;
      try {
        const all = { ...this.headers, ...headers };
        const response = await fetch(this.base + path, { ...rest, headers: all, signal });
        if (response.ok || response.status === 304) return response;
        const problem = await response.json().catch(() => ({}));
        if (response.status === 422 && problem.errors) throw new Invalid(problem.errors);
        const detail = problem.detail ?? response.statusText;
        if (response.status === 404) throw new Unknown(detail);
        if (response.status !== 429 && response.status !== 503)
          throw new Refused(response.status, detail);
        wait = Number(response.headers.get("retry-after")) || wait;
        why = detail;
      } catch (error) {
        if (error instanceof MqinferError || signal?.aborted) throw error;
        why = error.cause?.message ?? error.message; // of fetch: nobody answered
      }
      if (Date.now() + 1000 * wait > until) throw new Unavailable(`${this.base || "/"}: ${why}`);
      await sleep(wait, signal);
    }
  }

  /** The events of an address, each `{id, type, data}`; goes on where it was if it breaks off. */
  async *events(path, { signal, last = "" } = {}) {
    for (;;) {
      const headers = { accept: "text/event-stream" };
      if (last) headers["last-event-id"] = last;
      const response = await this.call(path, { headers, signal });
      if (response.status === 204) return;
      try {
        for await (const event of parsed(response.body)) {
          if (event.type === "reconnect") break;
          last = event.id || last;
          yield event;
          if (event.type === "end") return;
        }
      } catch (error) {
        if (error instanceof MqinferError || signal?.aborted) throw error;
      }
      await sleep(0.2, signal);
    }
  }
}

export class Request {
  constructor(client, state) {
    this.client = client;
    this.id = state.id;
    this.links = state.links;
    /** As it was when it was last looked at. */
    this.state = state;
  }

  /**
   * The answers, in the order of their causes; waits for them.
   *
   * @param {{timeout?: number, signal?: AbortSignal}} options seconds to wait, for ever if not said.
   * @throws {Invalid|Rejected|Failed|Canceled|Expired|Pending}
   */
  async result({ timeout = Infinity, signal } = {}) {
    const until = Date.now() + 1000 * timeout;
    for (;;) {
      const left = Math.max(0, Math.min(30, (until - Date.now()) / 1000));
      const prefer = `wait=${Math.ceil(left)}`;
      const response = await this.client.call(this.links.result, { headers: { prefer }, signal });
      const found = (this.state = await response.json());
      if (response.status === 200) return answers(found);
      if (Date.now() >= until) throw new Pending(`request ${this.id} has not ended`);
    }
  }

  /** What comes of it as it comes: `{type: "progress" | "answer" | "end", data}`. */
  events(options = {}) {
    return this.client.events(this.links.events, options);
  }

  /** Cancel it; throws `Refused` with status 409 if it has ended. */
  async cancel({ signal } = {}) {
    const response = await this.client.call(this.links.cancel, { method: "POST", signal });
    this.state = await response.json();
  }
}

export class Job {
  constructor(client, state) {
    this.client = client;
    this.id = state.id;
    this.links = state.links;
    /** As it was when it was last looked at: `status`, `rows`, `progress`. */
    this.state = state;
  }

  /** How far it is, each time that it is further, to its end: `{status, rows, progress}`. */
  async *progress({ signal } = {}) {
    for await (const { data } of this.client.events(this.links.events, { signal })) {
      this.state = data;
      yield data;
    }
  }

  /**
   * What came of the rows that are done, in their order: `{row, custom_id, status, answers, errors}`,
   * the answers without their types, and the errors as the classes that they are.
   *
   * @param {{errors?: boolean, after?: number, signal?: AbortSignal}} options only rows with errors;
   *   only rows behind this one.
   */
  async *results({ errors = false, after = 0, signal } = {}) {
    const link = errors ? this.links.errors : this.links.results;
    let until = Date.now() + 1000 * this.client.patience;
    for (;;) {
      const response = await this.client.call(`${link}?after=${after}`, { signal });
      try {
        for await (const line of lines(response.body)) {
          const row = JSON.parse(line);
          after = row.row;
          until = Date.now() + 1000 * this.client.patience;
          yield {
            ...row,
            answers: row.answers.map(({ data }) => data),
            errors: row.errors.map(errorOf),
          };
        }
        return;
      } catch (error) {
        // It broke off: go on behind the last row.
        if (!(error instanceof TypeError) || signal?.aborted || Date.now() > until) throw error;
      }
      await sleep(0.2, signal);
    }
  }

  /** Cancel it; throws `Refused` with status 409 if it has ended. */
  async cancel({ signal } = {}) {
    const response = await this.client.call(this.links.cancel, { method: "POST", signal });
    this.state = await response.json();
  }

  /** Open it again, once it has ended, for rows that failed otherwise than by being none. */
  async retryFailed({ signal } = {}) {
    const response = await this.client.call(this.links["retry-failed"], { method: "POST", signal });
    this.state = await response.json();
  }
}

/** The answers of a request that has ended, or the error that it ended with. */
function answers({ id, status, answers: found, errors }) {
  if (status === "canceled") throw new Canceled(`request ${id} was canceled`);
  if (status === "expired") throw new Expired(`the deadline of request ${id} came first`);
  if (errors.length) throw errorOf(errors[0]);
  return found.map(({ data }) => data);
}

/** An error of a request, or of a row of a job, as the class that it is. */
export function errorOf({ kind, reason, letter }) {
  if (kind === "rejected") return new Rejected(reason);
  if (kind === "invalid") return new Invalid([{ pointer: field(reason), detail: reason }]);
  if (kind === "canceled") return new Canceled(reason);
  if (kind === "expired") return new Expired(reason);
  return new Failed(reason, letter);
}

/** The field that a reason names: "... - at `$.petal_width`". */
function field(reason) {
  const found = / - at `\$\.([^`]*)`$/.exec(reason);
  return found ? `/input/${found[1].replaceAll(".", "/")}` : "/input";
}

/** The events in a stream of bytes, as HTML has them: lines, and an empty one behind each event. */
async function* parsed(body) {
  let event = { id: "", type: "message", data: [] };
  for await (const line of lines(body)) {
    if (line === "") {
      const { id, type, data } = event;
      if (data.length) yield { id, type, data: JSON.parse(data.join("\n")) };
      event = { id, type: "message", data: [] };
      continue;
    }
    const [, name, text] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
    if (name === "event") event.type = text;
    else if (name === "id") event.id = text;
    else if (name === "data") event.data.push(text ?? "");
  }
}

/** The whole lines in a stream of bytes. */
async function* lines(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const found = (rest + decoder.decode(value, { stream: true })).split(/\r?\n/);
      rest = found.pop();
      yield* found;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
