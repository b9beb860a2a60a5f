/**
 * Floats as the shortest digits that read back as the same bits, in the form that PostgreSQL prints (float8out and float4out
 * with extra_float_digits = 1): the text of float cells in every engine. Exponents from 15 (float32: 6) on and below −4 are written.
 */

export function float64Text(value: number): string {
  // JavaScript writes the shortest digits too, but an exponent only from 21 and below −6 on.
  if (value !== value || value === Infinity || value === -Infinity) return special(value);
  const magnitude = value < 0 ? -value : value;
  if (magnitude >= 1e-4 && magnitude < 1e15) return String(value);
  if (value === 0) return Object.is(value, -0) ? '-0' : '0';
  if (magnitude < 2 ** 53) return withExponent(value.toExponential());
  bits.setFloat64(0, magnitude);
  bits.setBigInt64(0, bits.getBigInt64(0) - 1n);
  let text = value.toExponential();
  for (let digits = significant(text) + 1; digits <= 17 && isBetween(text, magnitude, bits.getFloat64(0)); digits++)
    text = value.toExponential(digits - 1);
  return withExponent(text);
}

/** `value` is one that a float32 holds. */
export function float32Text(value: number): string {
  if (value !== value || value === Infinity || value === -Infinity) return special(value);
  if (value === 0) return Object.is(value, -0) ? '-0' : '0';
  const magnitude = value < 0 ? -value : value;
  bits.setFloat32(0, magnitude);
  bits.setInt32(0, bits.getInt32(0) - 1);
  const below = bits.getFloat32(0);
  // Any six digits survive the way through a normal float32, so fewer need not be tried; denormals have fewer.
  let shortest = value;
  for (let digits = magnitude < 1.1754943508222875e-38 ? 1 : 6; digits <= 9; digits++) {
    shortest = rounded(value, digits);
    if (Math.fround(shortest) !== value) continue;
    if (magnitude < 2 ** 24 || !isBetween(shortest.toExponential(), magnitude, below)) break;
  }
  if (Math.abs(shortest) >= 1e-4 && Math.abs(shortest) < 1e6) return String(shortest);
  return withExponent(shortest.toExponential());
}

/** A value half-way between two decimals of so many digits goes to the even one; `toExponential` goes away from zero. */
function rounded(value: number, digits: number): number {
  const text = value.toExponential(digits - 1);
  const longer = value.toExponential(digits);
  const last = text.indexOf('e') - 1;
  const isTie = longer[longer.indexOf('e') - 1] === '5' && Number(longer) === value;
  if (!isTie || Number(text[last]) % 2 === 0) return Number(text);
  return Number(`${text.slice(0, last)}${Number(text[last]) - 1}${text.slice(last + 1)}`);
}

const bits = new DataView(new ArrayBuffer(8));

const significant = (exponential: string) => exponential.replace(/e.*|[-.]/g, '').length;

/**
 * Is the decimal exactly half-way between the value and one of its neighbours? Readers that round half to even take it for the
 * value, so that JavaScript writes it; PostgreSQL writes a digit more. Below 2^53 (2^24) half-way has more digits than are needed.
 */
function isBetween(exponential: string, magnitude: number, below: number): boolean {
  const [mantissa = '', exponent = '0'] = exponential.replace('-', '').split('e');
  const [whole = '', fraction = ''] = mantissa.split('.');
  const shift = Number(exponent) - fraction.length;
  const up = 10n ** BigInt(Math.max(shift, 0));
  const down = 10n ** BigInt(Math.max(-shift, 0));
  const twice = 2n * BigInt(whole + fraction) * up;
  const value = BigInt(magnitude);
  // The neighbour above is as far as the one below, or twice as far (at powers of two).
  const gap = value - BigInt(below);
  const powerOfTwo = (value & (value - 1n)) === 0n;
  return twice === (2n * value - gap) * down || twice === (2n * value + (powerOfTwo ? 2n * gap : gap)) * down;
}

/** `1e-7` → `1e-07`: PostgreSQL writes two digits at least. */
function withExponent(exponential: string): string {
  // `1.50e+20` → `1.5e+20`, where digits were counted.
  const text = exponential.replace(/(\.\d*?)0+e/, '$1e').replace('.e', 'e');
  const at = text.length - 2;
  return text[at] === '+' || text[at] === '-' ? `${text.slice(0, at + 1)}0${text.slice(at + 1)}` : text;
}

function special(value: number): string {
  if (value !== value) return 'NaN';
  return value > 0 ? 'Infinity' : '-Infinity';
}
