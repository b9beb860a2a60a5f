import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

const FIXTURE = 'test/cli/fixtures/outcomes.ts';

function npmTest(...args: string[]): { code: number | null; lines: string[] } {
  const run = spawnSync(process.execPath, ['scripts/test.mjs', ...args, FIXTURE], { encoding: 'utf8' });
  return { code: run.status, lines: run.stdout.trimEnd().split('\n') };
}

describe('npm test', function () {
  this.timeout(30_000);

  it('ends with the counts, prints why tests were skipped, and fails when one failed', () => {
    const { code, lines } = npmTest('--grep', 'passes|fails|skipped');
    expect(code).to.equal(1);
    expect(lines.at(-1)).to.equal('1 passed, 1 failed, 3 skipped');
    const text = lines.join('\n');
    expect(text).to.include('- outcomes is skipped\n      no such server here');
    expect(text).to.include('- outcomes skipped by its hook two\n      no such folder here');
  });

  it('passes what was given through, and says when the tests are the long ones', () => {
    const { code, lines } = npmTest('--long', '--grep', 'is long');
    expect(code).to.equal(0);
    expect(lines).to.include('long it is');
    expect(lines.at(-1)).to.equal('1 passed, 0 failed, 0 skipped');
  });

  it('counts a run that ended early as a failure, and one without tests too', () => {
    const early = npmTest('--grep', 'dies');
    expect(early.code).not.to.equal(0);
    expect(early.lines.at(-1)).to.equal('0 passed, 1 failed, 0 skipped');
    const none = npmTest('--grep', 'no such test');
    expect(none.code).not.to.equal(0);
    expect(none.lines.at(-1)).to.equal('0 passed, 1 failed, 0 skipped');
  });
});

describe('package-lock.json', () => {
  it('names no registry', () => {
    expect(readFileSync('package-lock.json', 'utf8')).not.to.include('"resolved"');
  });

  it('has no install script that package.json does not allow', () => {
    const read = (file: string): unknown => JSON.parse(readFileSync(file, 'utf8'));
    const { packages } = read('package-lock.json') as { packages: Record<string, { hasInstallScript?: boolean }> };
    const { allowScripts } = read('package.json') as { allowScripts: Record<string, boolean> };
    const withScripts = Object.keys(packages)
      .filter((name) => packages[name]?.hasInstallScript)
      .map((name) => name.replace(/^.*node_modules\//, ''));
    expect(withScripts.filter((name) => allowScripts[name] !== true)).to.deep.equal([]);
  });
});
