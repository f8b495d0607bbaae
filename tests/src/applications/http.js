// Says who has the request, and keeps it; exits when it is told to stop.
const fs = require("fs");
const http = require("http");

process.on("SIGTERM", () => process.exit(0));
const server = http.createServer(() => fs.appendFileSync(process.env.RIG_MARKS, `${process.pid}\n`));
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1" });
