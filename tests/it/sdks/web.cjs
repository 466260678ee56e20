// What the OpenFeature SDK for browsers gets over OFREP: a JSON array for each state, one in a line. It ends when it is
// told of `last`.
//
// Usage: web.cjs URL TOKEN sse|polling
globalThis.EventSource = require('eventsource').EventSource;
const { OpenFeature, ProviderEvents } = require('@openfeature/web-sdk');
const { OFREPWebProvider } = require('@openfeature/ofrep-web-provider');

const [url, token, changeDetection] = process.argv.slice(2);

const told = (d) => [d.value, d.variant ?? null, d.reason, d.errorCode ?? null];
const say = (state) => {
  const client = OpenFeature.getClient();
  const text = client.getStringValue('text', 'default');
  console.log(
    JSON.stringify([
      state,
      told(client.getBooleanDetails('switch', false)),
      told(client.getStringDetails('text', 'default')),
      told(client.getNumberDetails('whole', 0)),
      told(client.getNumberDetails('float', 0)),
      told(client.getObjectDetails('object', {})),
      told(client.getBooleanDetails('listed', false)),
      told(client.getBooleanDetails('unknown', true)),
      told(client.getBooleanDetails('hidden', false)),
    ]),
  );
  if (text === 'last') OpenFeature.close().then(() => process.exit(0));
};

// Whoever started this may be gone.
setTimeout(() => process.exit(3), 120_000).unref();

(async () => {
  await OpenFeature.setContext({ targetingKey: 'anna', plan: 'pro' });
  const provider = new OFREPWebProvider({
    baseUrl: url,
    headers: [['Authorization', `Bearer ${token}`]],
    changeDetection,
    pollInterval: changeDetection === 'polling' ? 50 : 0,
    cacheMode: 'disabled',
  });
  OpenFeature.addHandler(ProviderEvents.ConfigurationChanged, ({ flagsChanged }) => say((flagsChanged ?? []).sort()));
  await OpenFeature.setProviderAndWait(provider);
  say('ready');
  await OpenFeature.setContext({ targetingKey: 'bert' });
  say('bert');
  await OpenFeature.setContext({});
  say('nobody');
  await OpenFeature.setContext({ targetingKey: 'anna', plan: 'pro' });
  say('anna');
})();
