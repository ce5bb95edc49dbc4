// The npm openai client: chats, streams, tools with its runner, structured answers, completions, typed errors.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { zodFunction, zodResponseFormat } from 'openai/helpers/zod';
import { Animal, Weather, model, tooLong } from './served.mjs';

const client = new OpenAI({ maxRetries: 0, timeout: 60_000 });
const chats = client.chat.completions;
const hello = [{ role: 'user', content: 'Hello! Who are you?' }];
const ask = { model, messages: hello, max_tokens: 200, temperature: 0, seed: 7 };

async function streamsEqualWholeAnswers() {
  const whole = await chats.create(ask);
  let [text, usage, finish] = ['', null, null];
  for await (const chunk of await chats.create({ ...ask, stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta.content ?? '';
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  assert.ok(text);
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(finish, whole.choices[0].finish_reason);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);

  const events = [];
  const runner = chats.stream(ask).on('content', (delta) => events.push(delta));
  assert.equal(await runner.finalContent(), text);
  assert.equal(events.join(''), text);
}

async function choicesAndLogProbabilities() {
  const done = await chats.create({ ...ask, n: 2, temperature: 1, logprobs: true, top_logprobs: 2 });
  assert.deepEqual(done.choices.map((choice) => choice.index), [0, 1]);
  const tokens = done.choices.map((choice) => choice.logprobs.content.length);
  assert.equal(done.usage.completion_tokens, tokens[0] + tokens[1]);
}

async function tools() {
  const tool = zodFunction({ name: 'weather', parameters: Weather });
  const named = { type: 'function', function: { name: 'weather' } };
  const parsed = await chats.parse({ ...ask, tools: [tool], tool_choice: named });
  const [call] = parsed.choices[0].message.tool_calls;
  assert.ok(Weather.safeParse(call.function.parsed_arguments).success);

  const streamed = await chats.stream({ ...ask, tools: [tool], tool_choice: named }).finalChatCompletion();
  assert.equal(streamed.choices[0].message.tool_calls[0].function.arguments, call.function.arguments);

  const result = { role: 'tool', tool_call_id: call.id, content: 'sun' };
  const next = await chats.create({ ...ask, max_tokens: 8, tools: [tool], messages: [...hello, parsed.choices[0].message, result] });
  assert.equal(next.choices[0].message.role, 'assistant');

  // The client's own loop runs the tool that the answer calls.
  const seen = [];
  const withTool = zodFunction({ name: 'weather', parameters: Weather, function: (found) => seen.push(found) && 'sun' });
  await chats.runTools({ ...ask, tools: [withTool], tool_choice: named }).done();
  assert.ok(seen.length === 1 && Weather.safeParse(seen[0]).success, JSON.stringify(seen));
}

async function structure() {
  const format = zodResponseFormat(Animal, 'animal');
  const parsed = await chats.parse({ ...ask, response_format: format });
  assert.ok(Animal.safeParse(parsed.choices[0].message.parsed).success);
  const streamed = await chats.stream({ ...ask, response_format: format }).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.parsed, parsed.choices[0].message.parsed);
}

async function completions() {
  const story = { model, prompt: 'Once upon a time', max_tokens: 20, temperature: 0 };
  const whole = await client.completions.create(story);
  let text = '';
  for await (const chunk of await client.completions.create({ ...story, stream: true })) text += chunk.choices[0].text;
  assert.equal(text, whole.choices[0].text);
}

async function errors() {
  await assert.rejects(chats.create({ ...ask, model: 'nobody' }), (e) => e instanceof OpenAI.NotFoundError && e.code === 'model_not_found');
  await assert.rejects(chats.create({ ...ask, temperature: 9 }), (e) => e instanceof OpenAI.BadRequestError && e.param === 'temperature');
  const long = [{ role: 'user', content: tooLong }];
  await assert.rejects(chats.create({ ...ask, messages: long }), (e) => e.status === 400 && e.code === 'context_length_exceeded');
  await assert.rejects(new OpenAI({ apiKey: 'wrong', maxRetries: 0 }).models.list(), OpenAI.AuthenticationError);
}

async function hangingUp() {
  const stream = await chats.create({ ...ask, max_tokens: 400, ignore_eos: true, stream: true });
  for await (const _ of stream) stream.controller.abort();
  assert.equal((await chats.create({ ...ask, max_tokens: 1 })).usage.completion_tokens, 1);
}

assert.equal((await client.models.retrieve(model)).id, model);
await streamsEqualWholeAnswers();
await choicesAndLogProbabilities();
await tools();
await structure();
await completions();
await errors();
await hangingUp();
console.log('ok');
