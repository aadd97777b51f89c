// Socket.IO: rooms are topics and users.
import { createRequire } from "node:module";
import { createServer } from "node:http";

const require = createRequire(process.env.PEER_MODULES + "/");
const { Server } = require("socket.io");

const http = createServer();
const server = new Server(http, { transports: ["websocket"], perMessageDeflate: false });

server.on("connection", (socket) => {
  socket.join(`user.${socket.handshake.query.user}`);
  socket.on("subscribe", (topic, done) => {
    socket.join(`topic.${topic}`);
    done("subscribed");
  });
  socket.on("publish", (topic, data) => {
    server.to(`topic.${topic}`).emit("message", { topic, data });
  });
  socket.on("direct", (user, data) => {
    server.to(`user.${user}`).emit("direct", { data });
  });
  socket.on("ping_", () => socket.emit("pong_"));
});

http.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 1024 });
