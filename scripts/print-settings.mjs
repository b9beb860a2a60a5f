/** Prints docs/settings.md from src/control/settings.ts: `node --import tsx scripts/print-settings.mjs > docs/settings.md`. Also imported by its test. */
import { fileURLToPath } from 'node:url';
import { SETTINGS } from '../src/control/settings.ts';

export function settingsPage() {
  const rows = Object.entries(SETTINGS).map(
    ([key, { default: value, min, max, unit, description }]) =>
      `| \`${key}\` | ${value} | ${unit} | ${min} … ${max} | ${description} |`,
  );
  return `# Settings

Rows of the \`config\` table of the control database. They are read again while the service runs; each value is checked, and a
wrong one is reported (\`error_logs\`, \`sluice doctor\`) and the value before it, or the default, stays in force.

\`\`\`sql
UPDATE config SET config_value = '30' WHERE config_key = 'cdc_check_interval_seconds';
\`\`\`

| config_key | default | unit | range | meaning |
|---|---|---|---|---|
${rows.join('\n')}

What the process itself is told (where the control database is, secrets, log) are environment variables: \`.env.example\`.

This page is printed from \`src/control/settings.ts\` by \`node --import tsx scripts/print-settings.mjs\`.
`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(settingsPage());
