/** Exact text of dates and times as TDS has them on the wire (MS-TDS 2.2.5.5.1.8, 2.2.5.5.1.9). */
import { refuse, type RowBuffer } from './bulk-buffer.ts';
import type { NumberWriter } from './bulk-numbers.ts';

const DAYS_1900 = 693_595;
const DAYS_1753 = 639_905;
/** 9999-12-31 in days since 0001-01-01. */
const LAST_DAY = 3_652_058;
const DAY_SECONDS = 86_400;

/** What `parse` found: days since 0001-01-01, seconds of the day, ten-millionths of the second, offset in minutes. */
const moment = { days: 0, seconds: 0, fraction: 0, offset: 0 };

interface Parts {
  readonly type: string;
  readonly date: boolean;
  readonly time: boolean;
  readonly offset: boolean;
  /** Digits of a second that the type keeps. */
  readonly scale: number;
}

const MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const DAYS_BEFORE = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

/**
 * `YYYY-MM-DD`, `HH:MM[:SS[.fffffff]]`, both, and an offset (`+02`, `+02:00`, `Z`) behind them, as far as `parts` asks for them.
 * Refuses everything else, digits of a second that the type does not keep, and 24:00.
 */
function parse(value: string, parts: Parts): void {
  text = value;
  at = 0;
  moment.days = 0;
  moment.seconds = 0;
  moment.fraction = 0;
  moment.offset = 0;
  if (parts.date) parseDate(parts);
  if (parts.date && parts.time) {
    if (at === text.length && !parts.offset) return;
    const separator = text.charCodeAt(at++);
    if (separator !== 0x20 && separator !== 0x54) fail(parts);
  }
  if (parts.time) parseTime(parts);
  if (parts.offset) parseOffset(parts);
  if (at !== text.length) fail(parts);
}

/** What is being read, and where; not closures, which would be made for every value. */
let text = '';
let at = 0;

function fail(parts: Parts): never {
  return refuse(`it is not a value that ${parts.type} has`);
}

/** NaN: it is not two digits. */
function twoDigits(): number {
  const tens = text.charCodeAt(at++) - 48;
  const ones = text.charCodeAt(at++) - 48;
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : NaN;
}

function parseDate(parts: Parts): void {
  const year = twoDigits() * 100 + twoDigits();
  if (text.charCodeAt(at++) !== 0x2d) fail(parts);
  const month = twoDigits();
  if (text.charCodeAt(at++) !== 0x2d) fail(parts);
  const day = twoDigits();
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  const most = month === 2 && leap ? 29 : (MONTH_DAYS[month - 1] ?? 0);
  if (!(year >= 1 && day >= 1 && day <= most)) fail(parts);
  const before = year - 1;
  const years = before * 365 + Math.floor(before / 4) - Math.floor(before / 100) + Math.floor(before / 400);
  moment.days = years + (DAYS_BEFORE[month - 1] ?? 0) + (leap && month > 2 ? 1 : 0) + day - 1;
}

function parseTime(parts: Parts): void {
  const hours = twoDigits();
  if (text.charCodeAt(at++) !== 0x3a) fail(parts);
  const minutes = twoDigits();
  let seconds = 0;
  if (text.charCodeAt(at) === 0x3a) {
    at++;
    seconds = twoDigits();
  }
  if (!(hours <= 23 && minutes <= 59 && seconds <= 59)) fail(parts);
  moment.seconds = hours * 3600 + minutes * 60 + seconds;
  if (text.charCodeAt(at) !== 0x2e) return;
  at++;
  let weight = 1e6;
  let digits = 0;
  for (; at < text.length; at++) {
    const digit = text.charCodeAt(at) - 48;
    if (!(digit >= 0 && digit <= 9)) break;
    if (++digits > parts.scale) {
      if (digit !== 0) refuse(`it has more digits of a second than ${parts.type}`);
      continue;
    }
    moment.fraction += digit * weight;
    weight /= 10;
  }
}

function parseOffset(parts: Parts): void {
  if (text.charCodeAt(at) === 0x20) at++;
  const sign = text.charCodeAt(at++);
  if (sign === 0x5a) return;
  if (sign !== 0x2b && sign !== 0x2d) fail(parts);
  let minutes = twoDigits() * 60;
  if (text.charCodeAt(at) === 0x3a) {
    at++;
    const rest = twoDigits();
    if (!(rest <= 59)) fail(parts);
    minutes += rest;
  }
  if (!(minutes <= 14 * 60)) refuse('its offset is beyond 14 hours');
  moment.offset = sign === 0x2d ? -minutes : minutes;
}

const POWERS = [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7];

function writeDays(out: RowBuffer, days: number): void {
  out.at = out.bytes.writeUIntLE(days, out.at, 3);
}

export function timeSize(scale: number): 3 | 4 | 5 {
  return scale <= 2 ? 3 : scale <= 4 ? 4 : 5;
}

function writeTime(out: RowBuffer, seconds: number, fraction: number, scale: number): void {
  const units = seconds * (POWERS[scale] ?? 1) + fraction / (POWERS[7 - scale] ?? 1);
  out.at = out.bytes.writeUIntLE(units, out.at, timeSize(scale));
}

export const writeDate: NumberWriter = (out, text) => {
  parse(text, DATE);
  out.reserve(4);
  out.bytes[out.at++] = 3;
  writeDays(out, moment.days);
};
const DATE: Parts = { type: 'date', date: true, time: false, offset: false, scale: 0 };

export function timeWriter(scale: number): NumberWriter {
  const parts: Parts = { type: `time(${scale})`, date: false, time: true, offset: false, scale };
  return (out, text) => {
    parse(text, parts);
    out.reserve(6);
    out.bytes[out.at++] = timeSize(scale);
    writeTime(out, moment.seconds, moment.fraction, scale);
  };
}

export function datetime2Writer(scale: number): NumberWriter {
  const parts: Parts = { type: `datetime2(${scale})`, date: true, time: true, offset: false, scale };
  return (out, text) => {
    parse(text, parts);
    out.reserve(9);
    out.bytes[out.at++] = timeSize(scale) + 3;
    writeTime(out, moment.seconds, moment.fraction, scale);
    writeDays(out, moment.days);
  };
}

/** On the wire date and time are UTC, followed by the offset. */
export function datetimeoffsetWriter(scale: number): NumberWriter {
  const parts: Parts = { type: `datetimeoffset(${scale})`, date: true, time: true, offset: true, scale };
  return (out, text) => {
    parse(text, parts);
    let seconds = moment.seconds - moment.offset * 60;
    let days = moment.days;
    if (seconds < 0) {
      seconds += DAY_SECONDS;
      days--;
    } else if (seconds >= DAY_SECONDS) {
      seconds -= DAY_SECONDS;
      days++;
    }
    if (days < 0 || days > LAST_DAY) refuse(`it is out of the range of ${parts.type}`);
    out.reserve(11);
    out.bytes[out.at++] = timeSize(scale) + 5;
    writeTime(out, seconds, moment.fraction, scale);
    writeDays(out, days);
    out.at = out.bytes.writeInt16LE(moment.offset, out.at);
  };
}

/**
 * datetime counts three-hundredths of a second, which print as .000, .003, .007 (and, cast to datetime2, as .0033333): only
 * these are taken, as there is nothing between them.
 */
export const writeDatetime: NumberWriter = (out, text) => {
  parse(text, DATETIME);
  const ticks = Math.round((moment.fraction * 3) / 100_000);
  const printed = Math.round((ticks * 10) / 3) * 10_000;
  const exact = Math.round((ticks * 100_000) / 3);
  if (moment.fraction !== printed && moment.fraction !== exact) refuse('datetime has only every 1/300 of a second');
  if (moment.days < DAYS_1753) refuse('it is out of the range of datetime');
  out.reserve(9);
  out.bytes[out.at++] = 8;
  out.at = out.bytes.writeInt32LE(moment.days - DAYS_1900, out.at);
  out.at = out.bytes.writeUInt32LE(moment.seconds * 300 + ticks, out.at);
};
const DATETIME: Parts = { type: 'datetime', date: true, time: true, offset: false, scale: 7 };

/** smalldatetime counts minutes. */
export const writeSmallDatetime: NumberWriter = (out, text) => {
  parse(text, SMALLDATETIME);
  if (moment.seconds % 60 !== 0) refuse('smalldatetime has no seconds');
  const days = moment.days - DAYS_1900;
  if (days < 0 || days > 0xffff) refuse('it is out of the range of smalldatetime');
  out.reserve(5);
  out.bytes[out.at++] = 4;
  out.at = out.bytes.writeUInt16LE(days, out.at);
  out.at = out.bytes.writeUInt16LE(moment.seconds / 60, out.at);
};
const SMALLDATETIME: Parts = { type: 'smalldatetime', date: true, time: true, offset: false, scale: 0 };
