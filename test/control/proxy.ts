/** A TCP proxy before a database, to take the network away: refused, cut, or swallowing everything. */
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

export interface Proxy {
  /** The database's URL through the proxy. */
  readonly url: string;
  /** Ends all connections and refuses new ones. */
  cut(): void;
  /** Keeps connections open and lets nothing through. */
  swallow(): void;
  /** As at first, for new connections. */
  restore(): void;
  close(): Promise<void>;
}

export async function startProxy(target: string): Promise<Proxy> {
  const url = new URL(target);
  const [host, port] = [url.hostname, Number(url.port)];
  let mode: 'through' | 'cut' | 'swallow' = 'through';
  const sockets = new Set<Socket>();
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => undefined);
  };
  const server = createServer((client) => {
    keep(client);
    if (mode === 'cut') return void client.resetAndDestroy();
    if (mode === 'swallow') return;
    const upstream = connect(port, host);
    keep(upstream);
    client.on('data', (data) => mode === 'through' && upstream.write(data));
    upstream.on('data', (data) => mode === 'through' && client.write(data));
    client.on('close', () => upstream.destroy());
    upstream.on('close', () => client.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  url.port = String((server.address() as AddressInfo).port);
  const endAll = () => sockets.forEach((socket) => socket.resetAndDestroy());
  return {
    url: url.toString(),
    cut: () => {
      mode = 'cut';
      endAll();
    },
    swallow: () => (mode = 'swallow'),
    restore: () => {
      if (mode === 'swallow') endAll();
      mode = 'through';
    },
    close: async () => {
      endAll();
      server.close();
      await once(server, 'close');
    },
  };
}
