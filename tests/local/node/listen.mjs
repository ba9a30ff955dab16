// Drive the official JavaScript client from a test: the first argument says what to join, lines
// on stdin say what to do, lines on stdout say what happened. All of it is JSON.

import { createInterface } from "node:readline";
import { createClient } from "@supabase/supabase-js";
import WebSocket from "ws";

const plan = JSON.parse(process.argv[2]);
const say = (kind, channel, data) =>
  process.stdout.write(JSON.stringify({ kind, channel, data }) + "\n");

// A token that is only given to realtime.setAuth is forgotten at the next reconnection: the client
// then asks this callback, and without one takes its key.
let token = plan.token ?? null;
const client = createClient(plan.url, plan.key, {
  auth: { persistSession: false, autoRefreshToken: false },
  ...(token ? { accessToken: async () => token } : {}),
  // Node 20 has no WebSocket, and the one of Node 22 never reports a failed attempt.
  realtime: { transport: WebSocket, ...(plan.vsn ? { vsn: plan.vsn } : {}) },
});
// Before the first join, which otherwise may go out without the token.
if (token) await client.realtime.setAuth();

const channels = new Map();

function join(wish) {
  const channel = client.channel(wish.name, {
    config: {
      private: wish.private ?? false,
      broadcast: { ack: wish.ack ?? false, self: wish.self ?? false },
    },
  });
  for (const event of wish.broadcast ?? []) {
    channel.on("broadcast", { event }, (message) => say("broadcast", wish.name, message));
  }
  for (const change of wish.changes ?? []) {
    channel.on("postgres_changes", change, (payload) => say("change", wish.name, payload));
  }
  channel.on("system", {}, (payload) => say("system", wish.name, payload));
  channels.set(wish.name, channel);
  channel.subscribe((status, error) =>
    say("status", wish.name, { status, error: error ? String(error.message ?? error) : null }),
  );
}

for (const wish of plan.channels) join(wish);

const actions = {
  join: (order) => join(order.channel),
  send: async (order) => {
    const { event, payload } = order;
    const answer = await channels
      .get(order.channel)
      .send({ type: "broadcast", event, payload });
    say("sent", order.channel, answer);
  },
  set_auth: (order) => {
    token = order.token;
    return client.realtime.setAuth(order.token);
  },
  leave: (order) => client.removeChannel(channels.get(order.channel)),
  quit: () => process.exit(0),
};

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  await actions[order.do](order);
}
process.exit(0);
