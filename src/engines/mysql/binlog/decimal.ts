/** DECIMAL in the binary log, and in parsed JSON (strings/decimal.cc, decimal2bin). */

/** Reads the number that begins at `start`; `bytes`: how many it has. */
export type DecimalReader = ((data: Buffer, start: number) => string) & { readonly bytes: number };

/** Bytes that hold so many decimal digits. */
export const DIGIT_BYTES = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4] as const;

/** Groups of nine digits in four bytes, big-endian; the first bit is set for positive numbers, negative ones are inverted. */
export function binaryDecimal(precision: number, scale: number): DecimalReader {
  const whole = precision - scale;
  const groups = [...sizes(whole).reverse(), ...sizes(scale)];
  const wholeGroups = sizes(whole).length;
  const total = decimalBytes(precision, scale);
  const read = (data: Buffer, start: number): string => {
    const bytes = Buffer.from(data.subarray(start, start + total));
    const isNegative = ((bytes[0] ?? 0) & 0x80) === 0;
    bytes[0] = (bytes[0] ?? 0) ^ 0x80;
    if (isNegative) for (let i = 0; i < total; i++) bytes[i] = ~(bytes[i] ?? 0) & 0xff;
    let before = '';
    let behind = '';
    let at = 0;
    groups.forEach((size, i) => {
      const width = DIGIT_BYTES[size] ?? 0;
      const part = String(width === 0 ? 0 : bytes.readUIntBE(at, width)).padStart(size, '0');
      at += width;
      if (i < wholeGroups) before += part;
      else behind += part;
    });
    const text = `${before.replace(/^0+(?=\d)/, '') || '0'}${scale > 0 ? `.${behind}` : ''}`;
    return isNegative && /[1-9]/.test(text) ? `-${text}` : text;
  };
  return Object.assign(read, { bytes: total });
}

export function decimalBytes(precision: number, scale: number): number {
  return [...sizes(precision - scale), ...sizes(scale)].reduce((sum, size) => sum + (DIGIT_BYTES[size] ?? 0), 0);
}

/** Nine at a time, then the rest (nearest to the decimal point come the full groups). */
function sizes(count: number): number[] {
  const full = Array<number>(Math.floor(count / 9)).fill(9);
  return count % 9 === 0 ? full : [...full, count % 9];
}
