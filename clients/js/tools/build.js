// Makes dist/: each entry as one minified module with a source map, and the declarations of TypeScript.
//
// 1. The other entries import dist/marketfeed.js, so that a page which uses several has the core once.
// 2. What is too large is not built: 6 KB gzipped without the book, 8 KB with it.

import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const DIST = `${ROOT}dist`;
const CORE = './marketfeed.js';
const MOST = { core: 6000, withBook: 8000 };

const SETTINGS = {
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  sourcemap: true,
  logLevel: 'warning',
};

/** What is imported by both entries is the core's, which exports it. */
const core = {
  name: 'core',
  setup({ onResolve }) {
    onResolve({ filter: /\/(feed|errors)\.js$/ }, () => ({ path: CORE, external: true }));
  },
};

async function bundle(entry, outfile, plugins = []) {
  const made = await build({ ...SETTINGS, entryPoints: [`${ROOT}src/${entry}`], outfile, plugins, write: true });
  if (made.warnings.length) process.exit(1);
}

/** Bytes of an entry with all that it needs, minified and gzipped. */
export async function sizeOf(entry) {
  const made = await build({ ...SETTINGS, sourcemap: false, entryPoints: [`${ROOT}src/${entry}`], write: false });
  return gzipSync(made.outputFiles[0].contents, { level: 9 }).length;
}

rmSync(DIST, { recursive: true, force: true });
await bundle('index.js', `${DIST}/marketfeed.js`);
await bundle('book.js', `${DIST}/book.js`, [core]);
await bundle('rest.js', `${DIST}/rest.js`, [core]);
execFileSync(process.execPath, [`${ROOT}node_modules/typescript/bin/tsc`, '--project', `${ROOT}tools/declarations.json`], { stdio: 'inherit' });
for (const [name, entry] of [['core', 'index.js'], ['withBook', 'book.js']]) {
  const size = await sizeOf(entry);
  console.log(`${entry}: ${size} bytes gzipped, of ${MOST[name]}`);
  if (size > MOST[name]) process.exitCode = 1;
}
