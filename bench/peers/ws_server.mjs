// The ws library for Node.
import { createRequire } from "node:module";

const require = createRequire(process.env.PEER_MODULES + "/");
const { WebSocketServer } = require("ws");

const topics = new Map();
const users = new Map();

function join(map, key, socket) {
  let members = map.get(key);
  if (!members) map.set(key, (members = new Set()));
  members.add(socket);
}

function leave(map, key, socket) {
  const members = map.get(key);
  if (members?.delete(socket) && members.size === 0) map.delete(key);
}

function relay(members, text) {
  for (const socket of members ?? []) socket.send(text);
}

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  perMessageDeflate: false,
  backlog: 1024,
});

server.on("connection", (socket, request) => {
  const user = new URL(request.url, "http://localhost").searchParams.get("user");
  const joined = new Set();
  join(users, user, socket);
  socket.on("message", (data) => {
    const message = JSON.parse(data);
    switch (message.op) {
      case "publish": {
        const { topic } = message;
        relay(topics.get(topic), JSON.stringify({ topic, data: message.data }));
        break;
      }
      case "subscribe":
        joined.add(message.topic);
        join(topics, message.topic, socket);
        socket.send('{"op":"subscribed"}');
        break;
      case "direct":
        relay(users.get(message.user), JSON.stringify({ from: user, data: message.data }));
        break;
      case "ping":
        socket.send('{"op":"pong"}');
    }
  });
  socket.on("error", () => {});
  socket.on("close", () => {
    for (const topic of joined) leave(topics, topic, socket);
    leave(users, user, socket);
  });
});
