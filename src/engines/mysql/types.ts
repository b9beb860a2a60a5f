export const ENGINE = 'mysql';
