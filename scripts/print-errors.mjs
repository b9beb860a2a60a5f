/**
 * Prints docs/errors.md from the comments in src/model/errors.ts: `node scripts/print-errors.mjs > docs/errors.md`, or with
 * `--check` exits 1 when the page is not current. Also imported by its test.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

const RETRIES = {
  never: 'Trying again cannot help; nothing is tried until a person acts.',
  backoff: 'Tried again by itself, at first soon, then more rarely.',
  on_change: 'Tried again when the configuration row or the schema changes (and rarely, in case).',
};

export function errorsPage() {
  const source = readFileSync(path.join(root, 'src', 'model', 'errors.ts'), 'utf8');
  const body = source.slice(source.indexOf('ERROR_CODES = {'), source.indexOf('} as const'));
  const entries = [...body.matchAll(/\/\*\*([\s\S]*?)\*\/\s*([A-Z_]+): '(\w+)'/g)].map(([, comment, code, retry]) => ({
    code,
    retry,
    text: comment.replace(/\n\s*\*\s?/g, ' ').trim(),
  }));
  const codes = [...body.matchAll(/^ {2}([A-Z_]+):/gm)].map(([, code]) => code);
  const bare = codes.filter((code) => !entries.some((entry) => entry.code === code));
  if (bare.length > 0) throw new Error(`without a comment in src/model/errors.ts: ${bare.join(', ')}`);
  return `# Errors

Every failure that Sluice reports carries one of these codes: on the terminal, in \`error_logs\`, in \`v_mapping_health\` and in the
\`error\` of \`--json\`. With the code come a message (what happened, to which mapping) and, where something can be done, a hint
(what to do, often the SQL). Neither holds passwords or row values.

What happens next is the code's retry class:

| retry | meaning |
|---|---|
${Object.entries(RETRIES)
  .map(([name, meaning]) => `| \`${name}\` | ${meaning} |`)
  .join('\n')}

A single error may carry another class than its code's own; the row says so.

| code | retry | what it means |
|---|---|---|
${entries.map((entry) => `| \`${entry.code}\` | ${entry.retry} | ${entry.text.replaceAll('|', '\\|')} |`).join('\n')}

This page is printed from \`src/model/errors.ts\` by \`node scripts/print-errors.mjs\`.
`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const page = errorsPage();
  if (!process.argv.includes('--check')) process.stdout.write(page);
  else if (readFileSync(path.join(root, 'docs', 'errors.md'), 'utf8') !== page) {
    console.error('docs/errors.md is not current: node scripts/print-errors.mjs > docs/errors.md');
    process.exitCode = 1;
  }
}
