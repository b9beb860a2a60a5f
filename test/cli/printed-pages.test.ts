import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { ERROR_CODES } from '../../src/model/errors.ts';

describe('docs/errors.md', () => {
  it('is what src/model/errors.ts says', () => {
    const check = spawnSync(process.execPath, ['scripts/print-errors.mjs', '--check'], { encoding: 'utf8' });
    expect(check.stderr).to.equal('');
    expect(check.status).to.equal(0);
  });

  it('has every code', () => {
    const page = readFileSync('docs/errors.md', 'utf8');
    for (const code of Object.keys(ERROR_CODES)) expect(page).to.include(`| \`${code}\` |`);
  });
});

describe('docs/types.md', () => {
  it('is what the engines’ type tables say', () => {
    const page = spawnSync(process.execPath, ['--import', 'tsx', 'scripts/print-types.mjs'], { encoding: 'utf8' });
    expect(page.stderr).to.equal('');
    expect(readFileSync('docs/types.md', 'utf8')).to.equal(page.stdout);
  });
});

describe('docs/settings.md', () => {
  it('is what src/control/settings.ts says', () => {
    const page = spawnSync(process.execPath, ['--import', 'tsx', 'scripts/print-settings.mjs'], { encoding: 'utf8' });
    expect(page.stderr).to.equal('');
    expect(readFileSync('docs/settings.md', 'utf8')).to.equal(page.stdout);
  });
});
