// Asks the router as a Node program would; prints what it got as JSON.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, maxRetries: 0 });
const ask = { model: "coder", messages: [{ role: "user", content: "hi" }], max_tokens: 5 };

const answer = await client.chat.completions.create(ask);
let streamed = "";
let usage = null;
const options = { ...ask, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(options)) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
const completion = await client.completions.create({ model: "coder", prompt: "a", suffix: "b", max_tokens: 5 });
const response = await client.responses.create({ model: "general", input: "hi", max_output_tokens: 5 });
const models = (await client.models.list()).data.map((model) => model.id);
const errors = {};
for (const [name, body] of Object.entries({ unknown: { ...ask, model: "x" }, wrong: { ...ask, temperature: 9 } })) {
  try {
    await client.chat.completions.create(body);
  } catch (error) {
    errors[name] = [error.constructor.name, error.status, error.code, error.param];
  }
}
const text = answer.choices[0].message.content;
console.log(JSON.stringify({ text, streamed, usage, completion: completion.choices[0].text, response: response.output_text, models, errors }));
