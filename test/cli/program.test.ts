import { expect } from 'chai';
import { sluice } from './support.ts';

describe('command line', () => {
  it('lists its commands', async () => {
    const run = await sluice(['--help']);
    expect(run.exitCode).to.equal(0);
    for (const name of [
      'run',
      'migrate',
      'doctor',
      'status',
      'sync',
      'verify',
      'add-server',
      'add-table',
      'secret',
      'demo',
    ])
      expect(run.stdout).to.match(new RegExp(`^  ${name}\\b`, 'm'));
  });

  it('answers an unknown command with exit code 2', async () => {
    const run = await sluice(['syncc']);
    expect(run.exitCode).to.equal(2);
    expect(run.stderr).to.include("unknown command 'syncc'");
  });

  it('answers a missing argument with one envelope when --json is given', async () => {
    const run = await sluice(['sync', '--json']);
    expect(run.exitCode).to.equal(2);
    expect(run.stderr).to.equal('');
    expect(run.envelope()).to.include({ command: 'sync', ok: false });
    expect(run.envelope().error?.code).to.equal('CONFIG_INVALID');
  });

  it('names the environment variable that is wrong, not its value', async () => {
    const run = await sluice(['status'], { DEST_URL: 'geheim' });
    expect(run.exitCode).to.equal(2);
    expect(run.stderr).to.match(/^CONFIG_INVALID: DEST_URL: /);
    expect(run.stderr).not.to.include('geheim');
  });
});
