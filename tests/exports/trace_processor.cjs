// Perfetto's trace processor, the engine of its UI, in node: node trace_processor.cjs ENGINE_DIR REQUESTS REPLIES
// REQUESTS and REPLIES hold perfetto.protos.TraceProcessorRpcStream messages. The engine is written for a browser's
// worker, so it finds here what it looks for there: self, location, fetch and XMLHttpRequest, and no `process`.
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const [engine, requests, replies] = process.argv.slice(2);
const read = (url) => fs.readFileSync(path.join(engine, path.basename(String(url))));
const code = read("engine_bundle.js").toString();

globalThis.self = globalThis;
globalThis.location = { href: "file:///engine_bundle.js" };
globalThis.WorkerGlobalScope = function () {};
globalThis.importScripts = () => {};
globalThis.fetch = async (url) => new Response(read(url), { headers: { "Content-Type": "application/wasm" } });
globalThis.XMLHttpRequest = class {
  open(method, url) {
    this.url = url;
  }
  send() {
    this.response = read(this.url);
  }
};
Object.defineProperty(globalThis, "process", { value: undefined, writable: true });

// Nothing tells when the engine is ready, so its compilation is watched; what follows that takes no time to speak of.
let timer;
const ready = () => {
  clearTimeout(timer);
  timer = setTimeout(ask, 200);
};
for (const name of ["instantiate", "instantiateStreaming"]) {
  const compile = WebAssembly[name];
  WebAssembly[name] = (...given) => {
    const compiled = compile.apply(WebAssembly, given);
    compiled.then(ready);
    return compiled;
  };
}
WebAssembly.Instance = new Proxy(WebAssembly.Instance, {
  construct(target, given) {
    ready();
    return new target(...given);
  },
});

const chunks = [];
const port = { postMessage: (data) => chunks.push(Buffer.from(data)) };

function ask() {
  port.onmessage({ data: new Uint8Array(fs.readFileSync(requests)) });
  fs.writeFileSync(replies, Buffer.concat(chunks));
}

try {
  vm.runInThisContext(code);
} catch (error) {
  console.error(String(error.stack).slice(-2000)); // without the source, which is one line of 150 kB
  throw new Error("the engine did not start");
}
self.onmessage({ data: port });
