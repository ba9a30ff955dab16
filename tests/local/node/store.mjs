// Use a storage with the official JavaScript clients: the argument says where, and which object;
// the last line on stdout says what came back. All of it is JSON.

import { createHash } from "node:crypto";
import { createClient } from "@supabase/supabase-js";
import * as tus from "tus-js-client";

const plan = JSON.parse(process.argv[2]);
const client = createClient(plan.url, plan.key, {
  auth: { persistSession: false, autoRefreshToken: false },
  realtime: { transport: class {} },
});
const files = client.storage.from(plan.bucket);
const hash = (bytes) => createHash("sha256").update(Buffer.from(bytes)).digest("hex");
const content = Buffer.alloc(plan.size, (n) => n);
for (let at = 0; at < content.length; at += 4) content.writeUInt32LE(at ^ 0x5bd1e995, at);

function must({ data, error }) {
  if (error) throw error;
  return data;
}

async function small() {
  const piece = content.subarray(0, 100_000);
  must(await files.upload("js/small.bin", piece, { contentType: "application/x-js" }));
  const again = await files.upload("js/small.bin", piece);
  const back = Buffer.from(await must(await files.download("js/small.bin")).arrayBuffer());
  const signed = must(await files.createSignedUrl("js/small.bin", 60)).signedUrl;
  const part = await fetch(signed, { headers: { Range: "bytes=1000-1999" } });
  const named = must(await files.list("js")).map((one) => one.name);
  must(await files.copy("js/small.bin", "js/copy.bin"));
  must(await files.move("js/copy.bin", "js/moved.bin"));
  const gone = must(await files.remove(["js/moved.bin"])).map((one) => one.name);
  return {
    whole: back.equals(piece),
    refused: again.error?.statusCode,
    range: [part.status, Buffer.from(await part.arrayBuffer()).equals(piece.subarray(1000, 2000))],
    named,
    gone,
  };
}

function upload(limit) {
  return new Promise((done, failed) => {
    const sent = new tus.Upload(content, {
      endpoint: `${plan.url}/storage/v1/upload/resumable`,
      headers: { authorization: `Bearer ${plan.key}`, apikey: plan.key, "x-upsert": "true" },
      metadata: { bucketName: plan.bucket, objectName: "js/large.bin", contentType: "x/y" },
      chunkSize: 6 * 1024 * 1024,
      uploadUrl: limit.url,
      retryDelays: [0, 100],
      onChunkComplete: (_, accepted) => {
        if (limit.stopAt && accepted >= limit.stopAt) {
          sent.abort();
          done({ url: sent.url, accepted });
        }
      },
      onError: failed,
      onSuccess: () => done({ url: sent.url, accepted: content.length }),
    });
    sent.start();
  });
}

async function large() {
  // Stopped in the middle, and gone on with by an upload that knows only the address.
  const first = await upload({ stopAt: 6 * 1024 * 1024 });
  const rest = await upload({ url: first.url });
  const back = await must(await files.download("js/large.bin")).arrayBuffer();
  return { stopped: first.accepted < content.length, sent: rest.accepted, hash: hash(back) };
}

const said = { small: await small(), large: await large(), wanted: hash(content) };
process.stdout.write(JSON.stringify(said) + "\n", () => process.exit(0));
