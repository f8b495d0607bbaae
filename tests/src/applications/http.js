// Says who has the request, and keeps it, but for one whose path ends in ok, which it answers at once; exits when it is told to stop.
const fs = require("fs");
const http = require("http");

process.on("SIGTERM", () => process.exit(0));
const server = http.createServer((request, response) => {
  if (request.url.endsWith("/ok")) {
    response.end("ok\n");
  } else {
    fs.appendFileSync(process.env.RIG_MARKS, `${process.pid}\n`);
  }
});
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1" });
