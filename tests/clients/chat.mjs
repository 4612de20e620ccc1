// The OpenAI library for Node, told by its first argument what to do; prints JSON.
import OpenAI from "openai";

const client = new OpenAI({ maxRetries: 0 });
const messages = [{ role: "user", content: "Hello" }];
const tools = [{
  type: "function",
  function: { name: "add", parameters: { type: "object", properties: { a: { type: "integer" } } } },
}];
const tasks = {
  async models() {
    return (await client.models.list()).data.map((model) => model.id);
  },
  async stream() {
    const parts = [];
    for await (const chunk of await client.chat.completions.create({ model: "coder", messages, stream: true })) {
      parts.push(chunk.choices[0]?.delta?.content ?? "");
    }
    return parts;
  },
  async tools() {
    const first = await client.chat.completions.create({ model: "coder", messages, tools });
    const call = first.choices[0].message.tool_calls[0];
    messages.push(first.choices[0].message, { role: "tool", tool_call_id: call.id, content: "3" });
    const second = await client.chat.completions.create({ model: "coder", messages, tools });
    return [call.function, second.choices[0].message.content];
  },
  async error() {
    try {
      await client.chat.completions.create({ model: "gpt-9", messages });
    } catch (error) {
      return [error.constructor.name, error.status, error.code, error.message];
    }
  },
  async complete() {
    const answer = await client.completions.create({ model: "coder", prompt: "a = ", suffix: "\nb", max_tokens: 8 });
    return answer.choices[0].text;
  },
};
console.log(JSON.stringify(await tasks[process.argv[2]]()));
