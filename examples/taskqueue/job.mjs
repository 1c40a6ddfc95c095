/**
 * A file of rows as a job, by the client in JavaScript; the demo runs it.
 *
 *     node examples/taskqueue/job.mjs http://127.0.0.1:8080 iris irises.csv
 *
 * Says on stderr how far it is, and prints one line of JSON: what came of it.
 */

import { readFile } from "node:fs/promises";
import { Client, Invalid, Rejected } from "./site/client.mjs";

const [base, endpoint, path] = process.argv.slice(2);
const client = new Client(base);
const file = new Blob([await readFile(path)]);
const job = await client.submit(endpoint, file, { format: "csv" });

let told = 0;
for await (const { status, rows, progress } of job.progress()) {
  told++;
  console.error(`${status}: ${progress.done} of ${rows ?? "?"} rows, ${progress.failed} failed`);
}

const count = { rows: 0, answered: 0, invalid: [], rejected: [], others: 0 };
const fields = new Set();
const kinds = new Set();
for await (const { row, answers, errors } of job.results()) {
  count.rows++;
  count.answered += answers.length;
  for (const error of errors) {
    if (error instanceof Invalid) {
      count.invalid.push(row);
      error.fields.forEach((field) => fields.add(field));
    } else if (error instanceof Rejected) {
      count.rejected.push(row);
      kinds.add(error.kind);
    } else count.others++;
  }
}
const { status, progress } = job.state;
const facts = { id: job.id, status, told, progress, ...count };
console.log(JSON.stringify({ ...facts, fields: [...fields], kinds: [...kinds] }));
