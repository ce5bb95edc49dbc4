// What the scripts share. By hand, in a copy of this folder after `npm ci`, against a server whose template has tools:
// OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=none node openai.mjs
import OpenAI from 'openai';
import { z } from 'zod';

// A script that hangs fails.
setTimeout(() => {
  console.error('not done after 240 s');
  process.exit(1);
}, 240_000).unref();

export const url = process.env.OPENAI_BASE_URL;
export const key = process.env.OPENAI_API_KEY;
export const model = (await new OpenAI({ maxRetries: 0 }).models.list()).data[0].id;

// More tokens than the model's context has.
export const tooLong = 'word '.repeat(5000);

// Every answer of this form ends: no string and no number can go on for ever.
export const Animal = z.object({
  name: z.string().max(12),
  legs: z.number().int().min(0).max(8),
  kind: z.enum(['cat', 'dog', 'bird']),
});
export const Weather = z.object({ place: z.enum(['Paris', 'Rome']), days: z.number().int().min(1).max(9) });
