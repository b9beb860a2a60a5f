/** Finds what fails among many things of which a few do, by trying halves of them. */
import type { SluiceError } from '../model/errors.ts';

/**
 * Tries the numbers from `first` to before `end`, and halves of what fails; `found` is told of each that fails alone, in their order, and
 * says whether to go on. False: it said no, and what is behind was not looked at.
 */
export async function halve(
  first: number,
  end: number,
  attempt: (first: number, end: number) => Promise<SluiceError | null>,
  found: (number: number, reason: SluiceError) => boolean,
): Promise<boolean> {
  if (first === end) return true;
  const reason = await attempt(first, end);
  if (reason === null) return true;
  if (end - first === 1) return found(first, reason);
  const middle = (first + end) >> 1;
  return (await halve(first, middle, attempt, found)) && halve(middle, end, attempt, found);
}
