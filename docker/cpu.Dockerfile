# docker build -f docker/cpu.Dockerfile -t seg_plugins:cpu .
# docker run --rm -v "$PWD:/data" seg_plugins:cpu tools/predict.py --model nuclei --input /data/images --output /data/results
FROM python:3.12-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential git make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/seg_plugins
# The packages change less often than the code: their layer is kept.
COPY requirements.txt Makefile ./
RUN make .venv/.requirements PYTHON=python3.12
COPY . .
RUN make setup PYTHON=python3.12 && useradd --create-home user && chown -R user .
USER user
ENTRYPOINT ["/opt/seg_plugins/.venv/bin/python"]
CMD ["tools/train_net.py", "--help"]
