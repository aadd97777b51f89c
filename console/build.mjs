// Bundles what the console's page has of others into the package: uPlot, its style and its license.
//
//     npm install && npm run build        node build.mjs DIRECTORY writes elsewhere
//
// Packages are looked for beside this file, and where NODE_PATH says.

import { copyFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "../realtime/static/console");
const require = createRequire(import.meta.url);
const { build } = require("esbuild");
const uplot = dirname(require.resolve("uplot/package.json"));
const license = "/*! uPlot, (c) Leon Sorokin, MIT: see uplot.LICENSE.txt */";

await build({
  entryPoints: [join(uplot, "dist/uPlot.esm.js")],
  outfile: join(out, "uplot.js"),
  bundle: true,
  format: "esm",
  minify: true,
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  banner: { js: license },
});
await build({
  entryPoints: [join(uplot, "dist/uPlot.min.css")],
  outfile: join(out, "uplot.css"),
  minify: true,
  legalComments: "none",
  banner: { css: license },
});
await copyFile(join(uplot, "LICENSE"), join(out, "uplot.LICENSE.txt"));
