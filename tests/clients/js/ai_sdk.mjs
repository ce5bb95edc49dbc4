// The AI SDK, over @ai-sdk/openai-compatible, the chat completions of @ai-sdk/openai and its default, /v1/responses: texts,
// tools in several steps, objects, whole and streamed, usage, errors, hanging up.
import assert from 'node:assert/strict';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from 'ai';
import { Animal, Weather, key, model, tooLong, url } from './served.mjs';

let settings;

async function texts(served) {
  const ask = { ...settings, model: served, system: 'Be brief.', prompt: 'Hello! Who are you?' };
  const whole = await generateText(ask);
  assert.ok(whole.text);
  const stream = streamText(ask);
  let text = '';
  for await (const delta of stream.textStream) text += delta;
  assert.equal(text, whole.text);
  assert.equal(await stream.finishReason, whole.finishReason);
  assert.equal((await stream.usage).outputTokens, whole.usage.outputTokens);
  assert.equal(whole.usage.totalTokens, whole.usage.inputTokens + whole.usage.outputTokens);
}

async function tools(served) {
  const seen = [];
  const weather = tool({ description: 'The weather.', inputSchema: Weather, execute: (input) => seen.push(input) && 'sun' });
  const ask = { ...settings, model: served, prompt: 'The weather?', tools: { weather } };

  // Two steps: the result of the first call is in the history of the second.
  const whole = await generateText({ ...ask, toolChoice: 'required', stopWhen: stepCountIs(2) });
  assert.equal(whole.steps.length, 2);
  assert.equal(seen.length, whole.steps[0].toolCalls.length + whole.steps[1].toolCalls.length);
  for (const step of whole.steps) assert.equal(step.finishReason, 'tool-calls');

  const named = { ...ask, toolChoice: { type: 'tool', toolName: 'weather' } };
  const [call] = (await generateText(named)).toolCalls;
  const stream = streamText(named);
  let input = '';
  for await (const part of stream.fullStream) {
    if (part.type === 'error') throw part.error;
    if (part.type === 'tool-input-delta') input += part.delta;
  }
  assert.deepEqual(JSON.parse(input), call.input);
  assert.deepEqual((await stream.toolCalls)[0].input, call.input);
}

async function objects(served) {
  const ask = { ...settings, model: served, schema: Animal, prompt: 'An animal.' };
  const whole = await generateObject(ask);
  assert.ok(Animal.safeParse(whole.object).success);
  const stream = streamObject(ask);
  let last;
  for await (const part of stream.partialObjectStream) last = part;
  assert.deepEqual(last, whole.object);
  assert.deepEqual(await stream.object, whole.object);
}

async function errors(provider) {
  const failed = (status, ask) =>
    assert.rejects(generateText({ ...settings, ...ask }), (error) => APICallError.isInstance(error) && error.statusCode === status && !error.isRetryable);
  await failed(404, { model: provider('nobody'), prompt: 'Hello' });
  await failed(400, { model: provider(model), prompt: tooLong });
}

async function hangingUp(served) {
  const stop = new AbortController();
  const stream = streamText({ ...settings, model: served, prompt: 'Tell me a story.', abortSignal: stop.signal });
  const kinds = [];
  for await (const part of stream.fullStream) {
    kinds.push(part.type);
    if (part.type === 'text-delta') stop.abort();
  }
  assert.equal(kinds.at(-1), 'abort');
}

const compatible = createOpenAICompatible({ name: 'baton', baseURL: url, apiKey: key, includeUsage: true, supportsStructuredOutputs: true });
const openai = createOpenAI();
const seeded = { seed: 7 };
const stateless = { providerOptions: { openai: { store: false } } };
for (const [provider, own] of [[compatible, seeded], [(name) => openai.chat(name), seeded], [openai, stateless]]) {
  settings = { maxOutputTokens: 200, maxRetries: 0, temperature: 0, ...own };
  await texts(provider(model));
  await tools(provider(model));
  await objects(provider(model));
  await errors(provider);
  await hangingUp(provider(model));
}
console.log('ok');
