/** Does a connection string hold a password itself, and not a reference to one? */
export function isPlainPassword(connection: string): boolean {
  const password =
    /:\/\/[^\s:/@]*:(\S*)@/.exec(connection)?.[1] ?? /[?&;](?:password|pwd)=([^&;]*)/i.exec(connection)?.[1];
  if (password === undefined || password === '') return false;
  return !/^(\$\{(env|file):[^}]+\}|enc:v1:\S+)$/.test(password);
}
