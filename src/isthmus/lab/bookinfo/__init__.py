"""Bookinfo in Python: four small servers with the names, ports, paths and behaviour of Istio's sample application.

`python -m isthmus.lab.bookinfo SERVICE VERSION` runs one. Beyond the sample, every answer says which cluster, pod and
version served it, what the proxy in front told about the caller, and the same of every service called on the way:

- response headers `x-served-service`, `x-served-cluster`, `x-served-pod`, `x-served-version`;
- `served` in every JSON object: `service`, `cluster`, `pod`, `version`, `request` (headers of interest, names in lower
  case) and `calls`: for each request that this one caused `url`, `ms`, `status` or `error`, and the `served` of who
  answered;
- the same in the product page, in its element `<script type="application/json" id="served">`.

Each pod can be told to fail, and asked which requests it got: see `directing`.

Source of names and behaviour: https://istio.io/latest/docs/examples/bookinfo/
"""
