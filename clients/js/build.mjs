// Builds dist/: each entry as an ES module and as CommonJS, minified, with its declarations.
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { build } from 'esbuild';

const at = (path) => new URL(path, import.meta.url);
rmSync(at('dist'), { recursive: true, force: true });

// The React entry imports the core entry rather than carrying a copy of it.
const shared = (extension) => ({
  name: 'shared-core',
  setup({ onResolve }) {
    onResolve({ filter: /^\.\/index\.js$/ }, () => ({
      path: `./index.${extension}`,
      external: true,
    }));
  },
});

// Names that only the core's own modules use among themselves, which may be shorter in dist/.
const INTERNAL = [
  ...['authenticate', 'deny', 'ended', 'expires', 'failed', 'flush', 'heard', 'isKept', 'isNew'],
  ...['isSent', 'isStream', 'lived', 'lost', 'maxSize', 'received', 'refuse', 'renewable'],
  ...['retryAfter', 'running', 'skip', 'taken', 'tell', 'wasLive', 'welcomed'],
];

for (const [format, extension] of [['esm', 'js'], ['cjs', 'cjs']]) {
  for (const entry of ['index', 'react']) {
    await build({
      absWorkingDir: new URL('.', import.meta.url).pathname,
      entryPoints: [`src/${entry}.ts`],
      outfile: `dist/${entry}.${extension}`,
      bundle: true,
      minify: true,
      mangleProps: new RegExp(`^(${INTERNAL.join('|')})$`),
      format,
      target: 'es2022',
      external: ['react'],
      banner: entry === 'react' ? { js: '"use client";' } : {},
      plugins: [shared(extension)],
    });
  }
}

execFileSync('tsc', ['-p', 'tsconfig.json'], { stdio: 'inherit', cwd: at('.') });
for (const name of readdirSync(at('dist')).filter((name) => name.endsWith('.d.ts'))) {
  const text = readFileSync(at(`dist/${name}`), 'utf8');
  writeFileSync(
    at(`dist/${name.replace(/\.ts$/, '.cts')}`),
    text.replace(/(['"]\.\/[\w-]+)\.js(['"])/g, '$1.cjs$2'),
  );
}
