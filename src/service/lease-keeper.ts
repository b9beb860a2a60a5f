/** Keeps this process's leases alive, in one round trip for all of them, and says when one is lost. */
import type { ControlDatabase, Owner } from '../control/index.ts';

export class LeaseKeeper {
  readonly #control: ControlDatabase;
  readonly #owner: Owner;
  readonly #seconds: () => number;
  readonly #held = new Map<string, { lost: () => void; validUntil: number }>();
  #timer: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(control: ControlDatabase, owner: Owner, seconds: () => number) {
    this.#control = control;
    this.#owner = owner;
    this.#seconds = seconds;
  }

  start(): void {
    const tick = () => {
      if (this.#stopped) return;
      this.#timer = setTimeout(() => void this.#renew().finally(tick), (this.#seconds() * 1000) / 3);
    };
    tick();
  }

  /** True: ours until `giveUp`, or until `lost` is called. */
  async take(key: string, lost: () => void): Promise<boolean> {
    const lease = await this.#control.leases.acquire(key, this.#owner, this.#seconds());
    if (!lease) return false;
    this.#held.set(key, { lost, validUntil: lease.validUntil });
    return true;
  }

  /**
   * Nobody else can hold it now. Asked before work begins anew: a process that was frozen must not take from its successor
   * what the successor rightly has. (What it had in hand is refused by the epoch.)
   */
  holds(key: string): boolean {
    return (this.#held.get(key)?.validUntil ?? 0) > performance.now();
  }

  async giveUp(key: string): Promise<void> {
    this.#held.delete(key);
    await this.#control.leases.release(key, this.#owner);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#timer) clearTimeout(this.#timer);
    this.#held.clear();
    await this.#control.leases.releaseAll(this.#owner).catch(() => undefined);
  }

  async #renew(): Promise<void> {
    if (this.#held.size === 0) return;
    const keys = [...this.#held.keys()];
    let renewed: Map<string, number>;
    try {
      renewed = new Map(
        (await this.#control.leases.renew(keys, this.#owner, this.#seconds())).map((lease) => [
          lease.key,
          lease.validUntil,
        ]),
      );
    } catch {
      // The control database is away: nobody else can take a lease either, and the epoch at the destination decides.
      return;
    }
    for (const key of keys) {
      const entry = this.#held.get(key);
      if (!entry) continue;
      const validUntil = renewed.get(key);
      if (validUntil !== undefined) {
        entry.validUntil = validUntil;
        continue;
      }
      // Expired while the control database was away, and still free: ours again.
      const again = await this.#control.leases.acquire(key, this.#owner, this.#seconds()).catch(() => null);
      if (again) {
        entry.validUntil = again.validUntil;
        continue;
      }
      this.#held.delete(key);
      entry.lost();
    }
  }
}
