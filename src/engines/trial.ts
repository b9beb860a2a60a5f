import { hasCode, type SluiceError } from '../model/errors.ts';

/** Why `work` was refused (ROW_REFUSED); null: it was not. Throws anything else. */
export async function refusalOf(work: () => Promise<unknown>): Promise<SluiceError | null> {
  try {
    await work();
    return null;
  } catch (error) {
    if (hasCode(error, 'ROW_REFUSED')) return error;
    throw error;
  }
}
