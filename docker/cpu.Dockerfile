# docker build -f docker/cpu.Dockerfile -t seg_plugins:cpu .
# docker run --rm -v "$PWD:/data" seg_plugins:cpu tools/predict.py --model nuclei --input /data/images --output /data/results
# The user inside has the number 1000, which the folder for results must admit. Another of yours:
# --user "$(id -u)" -e HOME=/tmp -e DETECTRON2_DATASETS=/tmp/datasets
FROM python:3.12-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential git make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/seg_plugins
# Built by the user that runs it: giving the files away afterwards would store each of them twice.
RUN useradd --uid 1000 --create-home user && chown user .
USER user
ENV PIP_NO_CACHE_DIR=1
# The packages change less often than the code: their layer is kept.
COPY --chown=user requirements.txt Makefile ./
RUN make .venv/.requirements PYTHON=python3.12
COPY --chown=user . .
RUN make setup PYTHON=python3.12
ENTRYPOINT ["/opt/seg_plugins/.venv/bin/python"]
CMD ["tools/train_net.py", "--help"]
