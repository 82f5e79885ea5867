// A batch by OpenAI's own client: upload, create, poll, download.
//
//     npm install openai
//     export OPENAI_BASE_URL=https://nightrate.example.com/v1 OPENAI_API_KEY=sk-nr-...
//     node examples/batch_openai.ts examples/chat.jsonl answers.jsonl    # Node 22.18 or newer; else: npx tsx
//
// Nothing here knows of Nightrate: with OpenAI's URL and key it runs there.

import { createReadStream, createWriteStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { argv, env, exit, stderr } from 'node:process';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI from 'openai';

const ENDED = ['completed', 'failed', 'expired', 'cancelled'];

async function main(requests: string, answers: string): Promise<number> {
  const client = new OpenAI();
  const endpoint = JSON.parse(await firstLine(requests)).url;
  const file = await client.files.create({ file: createReadStream(requests), purpose: 'batch' });
  let batch = await client.batches.create({ input_file_id: file.id, endpoint, completion_window: '24h' });

  while (!ENDED.includes(batch.status)) {
    await sleep(1000 * Number(env.POLL_SECONDS ?? 10));
    batch = await client.batches.retrieve(batch.id);
    stderr.write(`${batch.id} ${batch.status} ${JSON.stringify(batch.request_counts)}\n`);
  }

  for (const fault of batch.errors?.data ?? []) stderr.write(`line ${fault.line}: ${fault.message}\n`);
  if (batch.output_file_id) {
    const content = await client.files.content(batch.output_file_id);
    await pipeline(Readable.fromWeb(content.body as never), createWriteStream(answers));
  }
  if (batch.error_file_id) stderr.write(await (await client.files.content(batch.error_file_id)).text());
  return batch.status === 'completed' && !batch.error_file_id ? 0 : 1;
}

async function firstLine(path: string): Promise<string> {
  const file = await open(path);
  try {
    for await (const line of file.readLines()) return line;
  } finally {
    await file.close();
  }
  throw new Error(`${path} has no requests`);
}

const [requests, answers] = argv.slice(2);
if (requests === undefined || answers === undefined) {
  stderr.write('usage: batch_openai.ts requests.jsonl answers.jsonl\n');
  exit(2);
}
main(requests, answers).then(exit, (error) => {
  stderr.write(`${error}\n`);
  exit(1);
});
