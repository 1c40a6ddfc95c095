/** The page: a form for each endpoint, made of the gateway's OpenAPI document. */

import { Client, Invalid } from "./client.mjs";

const client = new Client();
const api = await (await fetch("/openapi.json")).json();
const asks = /^\/v1\/endpoints\/([^/{}]+)\/requests$/;

function resolved(schema) {
  const name = schema.$ref?.replace("#/components/schemas/", "");
  return name ? api.components.schemas[name] : schema;
}

function form(endpoint, operation) {
  const body = operation.requestBody.content["application/json"].schema;
  const fields = resolved(body.properties.input).properties;
  const made = document.querySelector("template").content.cloneNode(true).querySelector("form");
  made.id = endpoint;
  made.querySelector("h2").textContent = endpoint;
  made.querySelector("p").textContent = operation.description;
  for (const [name, schema] of Object.entries(fields)) {
    const label = document.createElement("label");
    const unit = schema.description ? ` (${schema.description})` : "";
    label.textContent = name.replaceAll("_", " ") + unit;
    const input = Object.assign(document.createElement("input"), { name, autocomplete: "off" });
    label.append(input);
    made.querySelector("div").append(label);
  }
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    ask(made, endpoint, fields);
  });
  document.querySelector("main").append(made);
}

/** A number where the field is one and the text is one, too; else the gateway says what is wrong. */
function value(schema, text) {
  const number = ["number", "integer"].includes(schema.type) && text.trim() !== "";
  return number && Number.isFinite(Number(text)) ? Number(text) : text;
}

async function ask(made, endpoint, fields) {
  const output = made.querySelector("output");
  const inputs = [...made.querySelectorAll("input")];
  output.className = "";
  output.textContent = "asked ...";
  for (const input of inputs) input.classList.remove("wrong");
  const given = inputs.map((input) => [input.name, value(fields[input.name], input.value)]);
  try {
    const request = await client.request(endpoint, Object.fromEntries(given));
    const found = await request.result();
    output.textContent = found.map((one) => JSON.stringify(one, null, 1)).join("\n");
  } catch (error) {
    output.className = "error";
    output.textContent = `${error.name}: ${error.message}`;
    if (error instanceof Invalid)
      for (const input of inputs) input.classList.toggle("wrong", error.fields.includes(input.name));
  }
}

for (const [path, { post }] of Object.entries(api.paths)) {
  const found = asks.exec(path);
  if (found) form(found[1], post);
}
document.body.dataset.ready = "yes";
