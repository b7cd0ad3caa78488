#![allow(missing_docs, clippy::unwrap_used)]
use lifeboat_core::*; use lifeboat_postgres::*; use std::sync::Arc; use std::time::Instant;
use lifeboat_testbed::{postgres::Cluster, data};
struct Null; struct NullW;
#[async_trait] impl Sink for Null { async fn write(&self,_:&Header,_:&Context)->Result<Box<dyn Writing>>{Ok(Box::new(NullW))} }
#[async_trait] impl Writing for NullW {
 async fn put(&self,_:u64,mut e:Entry)->Result<()> { while let Some(_x)=e.content.next().await? {} Ok(()) }
 async fn commit(self:Arc<Self>,_:Completion)->Result<Receipt>{Ok(Receipt::default())}
 async fn abort(self:Arc<Self>){} }
#[tokio::main] async fn main(){
  let cluster=Cluster::start(lifeboat_testbed::postgres::newest().unwrap()).unwrap();
  let c=cluster.connect("postgres").await.unwrap();
  data::seed(&c, data::Size::LARGE).await.unwrap(); c.batch_execute("CHECKPOINT").await.unwrap();
  for (name,v) in [("verify",VerifyPages::Verify),("verify",VerifyPages::Verify),("skip",VerifyPages::Skip),("skip",VerifyPages::Skip)] {
   for conc in [1,8] {
    let mut o=ClusterOptions::new(ConnectOptions::parse(&cluster.conninfo()).unwrap()); o.verify_pages=v;
    let s=ClusterSource::new("x",o); let ctx=Context::silent(); let mut t=TransferOptions::default(); t.concurrency=conc;
    let (u0,b)=(cpu(),Instant::now()); let sum=transfer(&s,&Null,&t,&ctx).await.unwrap(); let e=b.elapsed().as_secs_f64(); let u=cpu()-u0;
    println!("{name} c={conc} {} MB in {e:.2}s = {:.2} GB/s wall; cpu {u:.2}s = {:.2} GB/s per core", sum.progress.read>>20, sum.progress.read as f64/e/1e9, sum.progress.read as f64/u/1e9);
   }}
}
fn cpu()->f64{ let t=std::fs::read_to_string("/proc/self/stat").unwrap(); let f:Vec<&str>=t.rsplit_once(')').unwrap().1.split_whitespace().collect(); (f[11].parse::<f64>().unwrap()+f[12].parse::<f64>().unwrap())/100.0 }
