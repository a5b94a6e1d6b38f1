// One request by an official Node SDK; prints what it has read. Arguments: client, URL, key, model, "stream" or "plain",
// and the names of the tools to offer, with commas between them.
const [client, url, key, model, how, offered] = process.argv.slice(2);
const stream = how === "stream";
const names = offered ? offered.split(",") : [];
const [system, question] = ["Be brief.", "How is the weather in Oslo?"];
const schema = { type: "object", properties: { city: { type: "string" } } };

const clients = {
  async chat() {
    const { default: OpenAI } = await import("openai");
    const completions = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 }).chat.completions;
    const tools = names.map((name) => ({ type: "function", function: { name, parameters: schema } }));
    const body = {
      model,
      messages: [{ role: "system", content: system }, { role: "user", content: question }],
      max_completion_tokens: 200,
      ...(tools.length ? { tools } : {}),
    };
    const whole = stream
      ? await completions.stream({ ...body, stream_options: { include_usage: true } }).finalChatCompletion()
      : await completions.create(body);
    const { message, finish_reason: stop } = whole.choices[0];
    return {
      text: message.content ?? "",
      calls: (message.tool_calls ?? []).map((call) => [call.function.name, JSON.parse(call.function.arguments)]),
      stop: stop === "tool_calls" ? "tool" : stop,
      usage: [whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.prompt_tokens_details?.cached_tokens ?? 0],
    };
  },
  async responses() {
    const { default: OpenAI } = await import("openai");
    const responses = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 }).responses;
    const tools = names.map((name) => ({ type: "function", name, parameters: schema, strict: false }));
    const body = { model, instructions: system, input: question, max_output_tokens: 200, store: false, tools };
    const whole = stream ? await responses.stream(body).finalResponse() : await responses.create(body);
    const calls = whole.output.filter((item) => item.type === "function_call");
    return {
      text: whole.output_text,
      calls: calls.map((call) => [call.name, JSON.parse(call.arguments)]),
      stop: calls.length ? "tool" : { completed: "stop", incomplete: "length" }[whole.status],
      usage: [whole.usage.input_tokens, whole.usage.output_tokens, whole.usage.input_tokens_details.cached_tokens],
    };
  },
  async messages() {
    const { default: Anthropic } = await import("@anthropic-ai/sdk");
    const messages = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 }).messages;
    const tools = names.map((name) => ({ name, input_schema: schema }));
    const body = {
      model, system, messages: [{ role: "user", content: question }], max_tokens: 200, ...(tools.length ? { tools } : {}),
    };
    const whole = stream ? await messages.stream(body).finalMessage() : await messages.create(body);
    const { input_tokens: fresh, cache_read_input_tokens: cached, cache_creation_input_tokens: made } = whole.usage;
    return {
      text: whole.content.map((block) => block.text ?? "").join(""),
      calls: whole.content.filter((block) => block.type === "tool_use").map((block) => [block.name, block.input]),
      stop: { end_turn: "stop", max_tokens: "length", tool_use: "tool" }[whole.stop_reason],
      usage: [fresh + (cached ?? 0) + (made ?? 0), whole.usage.output_tokens, cached ?? 0],
    };
  },
};

const [name, kind] = client.split(":");
async function vercel() {
  const { generateText, streamText, tool, jsonSchema } = await import("ai");
  const makers = {
    async responses() {
      const { createOpenAI } = await import("@ai-sdk/openai");
      return createOpenAI({ baseURL: `${url}/v1`, apiKey: key })(model);
    },
    async chat() {
      const { createOpenAICompatible } = await import("@ai-sdk/openai-compatible");
      return createOpenAICompatible({ name: "agw", baseURL: `${url}/v1`, apiKey: key, includeUsage: true })(model);
    },
    async messages() {
      const { createAnthropic } = await import("@ai-sdk/anthropic");
      return createAnthropic({ baseURL: `${url}/v1`, apiKey: key })(model);
    },
    async gemini() {
      const { createGoogleGenerativeAI } = await import("@ai-sdk/google");
      return createGoogleGenerativeAI({ baseURL: `${url}/v1beta`, apiKey: key })(model);
    },
  };
  const tools = Object.fromEntries(names.map((each) => [each, tool({ inputSchema: jsonSchema(schema) })]));
  const asked = { model: await makers[kind](), instructions: system, prompt: question, maxOutputTokens: 200, maxRetries: 0, tools };
  let told;
  if (stream) {
    const failed = [];
    told = streamText({ ...asked, onError: ({ error }) => failed.push(error) });
    await told.consumeStream();
    if (failed.length) throw failed[0];
  } else {
    told = await generateText(asked);
  }
  const [text, calls, stop, usage] = await Promise.all([told.text, told.toolCalls, told.finishReason, told.usage]);
  return {
    text,
    calls: calls.map((call) => [call.toolName, call.input]),
    stop: stop === "tool-calls" ? "tool" : stop,
    usage: [usage.inputTokens, usage.outputTokens, usage.inputTokenDetails?.cacheReadTokens ?? usage.cachedInputTokens ?? 0],
  };
}

console.log(JSON.stringify(await (name === "vercel" ? vercel : clients[name])()));
