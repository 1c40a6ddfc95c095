/**
 * What the client in JavaScript is used like, and what it sees; the demo and the tests run it.
 *
 *     node examples/taskqueue/ask.mjs http://127.0.0.1:8080
 *
 * Prints one line of JSON: what each call gave or threw.
 */

import { Client } from "./site/client.mjs";

const client = new Client(process.argv[2]);
const flower = { sepal_length: 5.1, sepal_width: 3.5, petal_length: 1.4, petal_width: 0.2 };

async function told(endpoint, changes, options) {
  try {
    const request = await client.request(endpoint, { ...flower, ...changes }, options);
    return { id: request.id, answers: await request.result() };
  } catch (error) {
    return { error: error.name, message: error.message, ...error };
  }
}

async function streamed(endpoint) {
  const request = await client.request(endpoint, flower);
  const events = [];
  for await (const { type, data } of request.events()) events.push([type, data]);
  const again = await client.get(request.id);
  return { events, status: again.state.status };
}

const [iris, oddity] = await Promise.all([told("iris"), told("oddity")]); // both at once
const key = `once-${Date.now()}`;
console.log(
  JSON.stringify({
    iris,
    oddity,
    twice: [await told("iris", {}, { key }), await told("iris", {}, { key })],
    misspelt: await told("iris", { petal_width: "asdfg", sepal_width: -1 }),
    too_long: await told("iris", { sepal_length: 12.5 }),
    swapped: await told("oddity", { petal_length: 6 }),
    broken: await told("oddity", { sepal_length: 9, petal_length: 8 }),
    events: await streamed("iris"),
    unknown: await client.get("rq_nobody").catch(({ name }) => name),
  }),
);
